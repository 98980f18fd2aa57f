//! Dense retrieval: a scan over int8 codes selects candidates, and f32 dot products of unit vectors score them exactly.

use roaring::RoaringBitmap;
use simsimd::SpatialSimilarity;

use super::row_table::RowTable;
use super::top_k::TopK;

/// The int8 scan selects this many times `depth` candidates for exact scoring.
const OVERSAMPLING: usize = 4;
/// Minimum number of candidates that the int8 scan selects.
const MIN_SCANNED: usize = 200;

/// Checks that a vector has `dimension` finite components. The error is the reason for a message.
pub(super) fn check(vector: &[f32], dimension: usize) -> Result<(), String> {
    if vector.len() != dimension {
        return Err(format!("it has {} dimensions, the generation has {dimension}", vector.len()));
    }
    if vector.iter().any(|x| !x.is_finite()) {
        return Err("it has a component that is not finite".to_owned());
    }
    Ok(())
}

/// Scales a vector to unit length. A vector of unit length (within 1e-4) and the zero vector are returned unchanged,
/// bit for bit.
pub(super) fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 && (length - 1.0).abs() > 1e-4 {
        for x in &mut vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    vector
}

/// Quantises a vector to int8 symmetrically (largest component = 127), writes the codes to `codes`, and returns the
/// scale: component = code * scale.
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

/// The cosine of two vectors of unit length: their dot product, from -1 to 1.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    // The clamp removes rounding errors beyond the range.
    (f32::dot(a, b).unwrap_or(0.0) as f32).clamp(-1.0, 1.0)
}

/// The cosine and number of the `depth` rows nearest to `query`, among `rows`, best first. `query` has unit length.
/// Exact if `rows` are few; otherwise rows that the int8 scan does not select are missed.
pub(super) fn nearest(table: &RowTable, rows: &RoaringBitmap, query: &[f32], depth: usize) -> Vec<(f32, u32)> {
    let scanned = depth.saturating_mul(OVERSAMPLING).max(MIN_SCANNED);
    let all = rows.len() <= scanned as u64;
    let shortlist = if all { rows.iter().collect() } else { scan(table, rows, query, scanned) };
    let mut best = TopK::new(depth);
    for number in shortlist {
        if let Some(row) = table.row(number) {
            best.push(table, cosine(query, &row.vector), number);
        }
    }
    best.sorted(table)
}

/// The numbers of the `count` rows nearest to `query` by the dot product of int8 codes, best first.
fn scan(table: &RowTable, rows: &RoaringBitmap, query: &[f32], count: usize) -> Vec<u32> {
    let mut query_code = vec![0i8; query.len()];
    quantise(query, &mut query_code);
    let mut best = TopK::new(count);
    let mut current = None;
    for number in rows {
        let at = RowTable::chunk_number(number);
        let chunk = match current {
            Some((open, chunk)) if open == at => chunk,
            _ => match table.chunk_of(number) {
                Some(chunk) => chunk,
                None => continue,
            },
        };
        current = Some((at, chunk));
        let (code, scale) = chunk.code(number, table.dimension);
        let product = i8::dot(&query_code, code).unwrap_or(0.0) as f32;
        best.push(table, product * scale, number);
    }
    best.sorted(table).into_iter().map(|(_, number)| number).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_times_scale_approximate_the_vector() {
        let vector = [0.5f32, -0.25, 0.0, 0.125];
        let mut codes = [0i8; 4];
        let scale = quantise(&vector, &mut codes);
        for (code, x) in codes.iter().zip(vector) {
            assert!((f32::from(*code) * scale - x).abs() <= scale / 2.0);
        }
        assert_eq!(quantise(&[0.0; 4], &mut codes), 0.0);
    }

    #[test]
    fn vectors_are_normalised_once_and_checked() {
        let unit = normalised(vec![3.0, 4.0]);
        assert_eq!(unit, [0.6, 0.8]);
        assert_eq!(normalised(unit.clone()), unit);
        assert_eq!(normalised(vec![0.0, 0.0]), [0.0, 0.0]);
        assert!(check(&[f32::NAN], 1).is_err() && check(&[1.0], 2).is_err() && check(&[1.0], 1).is_ok());
    }
}
