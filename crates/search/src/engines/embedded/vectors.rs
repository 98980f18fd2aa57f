//! Vectors: of length 1, as floats for exact scores and as bytes for the scan.

use roaring::RoaringBitmap;
use simsimd::SpatialSimilarity;

use super::best::Best;
use super::data::Data;

/// How many more candidates than asked for the scan over bytes hands to the exact scores.
const OVERSAMPLING: usize = 4;
const MIN_SCANNED: usize = 200;

/// Why a vector cannot be indexed or searched with.
pub(super) fn check(vector: &[f32], dimension: usize) -> Result<(), String> {
    if vector.len() != dimension {
        return Err(format!("it has {} dimensions, the generation {dimension}", vector.len()));
    }
    if vector.iter().any(|x| !x.is_finite()) {
        return Err("it holds a number that is not finite".to_owned());
    }
    Ok(())
}

/// The vector with length 1; one that has it already stays as it is, bit for bit.
pub(super) fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 && (length - 1.0).abs() > 1e-4 {
        for x in &mut vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    vector
}

/// Writes the vector as bytes and returns the scale that leads back.
pub(super) fn quantise(vector: &[f32], codes: &mut [i8]) -> f32 {
    let largest = vector.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    if largest == 0.0 {
        codes.fill(0);
        return 0.0;
    }
    let factor = 127.0 / largest;
    for (code, x) in codes.iter_mut().zip(vector) {
        *code = (x * factor).round() as i8;
    }
    largest / 127.0
}

pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    // Both have length 1; rounding must not lead out of the range.
    (f32::dot(a, b).unwrap_or(0.0) as f32).clamp(-1.0, 1.0)
}

/// The `depth` nearest rows among `rows`, best first, with their cosines.
pub(super) fn nearest(data: &Data, rows: &RoaringBitmap, query: &[f32], depth: usize) -> Vec<(f32, u32)> {
    let scanned = depth.saturating_mul(OVERSAMPLING).max(MIN_SCANNED);
    let few = rows.len() <= scanned as u64;
    let shortlist = if few { rows.iter().collect() } else { scan(data, rows, query, scanned) };
    let mut best = Best::new(depth);
    for number in shortlist {
        if let Some(row) = data.row(number) {
            best.push(data, cosine(query, &row.vector), number);
        }
    }
    best.sorted(data)
}

/// The rows that are nearest by their bytes.
fn scan(data: &Data, rows: &RoaringBitmap, query: &[f32], count: usize) -> Vec<u32> {
    let mut query_code = vec![0i8; query.len()];
    quantise(query, &mut query_code);
    let mut best = Best::new(count);
    let mut current = None;
    for number in rows {
        let at = Data::chunk_number(number);
        let chunk = match current {
            Some((open, chunk)) if open == at => chunk,
            _ => match data.chunk_of(number) {
                Some(chunk) => chunk,
                None => continue,
            },
        };
        current = Some((at, chunk));
        let (code, scale) = chunk.code(number, data.dimension);
        let product = i8::dot(&query_code, code).unwrap_or(0.0) as f32;
        best.push(data, product * scale, number);
    }
    best.sorted(data).into_iter().map(|(_, number)| number).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lead_back_to_the_vector() {
        let vector = [0.5f32, -0.25, 0.0, 0.125];
        let mut codes = [0i8; 4];
        let scale = quantise(&vector, &mut codes);
        for (code, x) in codes.iter().zip(vector) {
            assert!((f32::from(*code) * scale - x).abs() <= scale / 2.0);
        }
        assert_eq!(quantise(&[0.0; 4], &mut codes), 0.0);
    }

    #[test]
    fn lengths_become_one_and_stay_one() {
        let unit = normalised(vec![3.0, 4.0]);
        assert_eq!(unit, [0.6, 0.8]);
        assert_eq!(normalised(unit.clone()), unit);
        assert_eq!(normalised(vec![0.0, 0.0]), [0.0, 0.0]);
        assert!(check(&[f32::NAN], 1).is_err() && check(&[1.0], 2).is_err() && check(&[1.0], 1).is_ok());
    }
}
