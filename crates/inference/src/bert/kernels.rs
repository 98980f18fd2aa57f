//! The operations of the network between its matrix products. They are loops over slices that the compiler vectorises;
//! `pulp` selects the widest SIMD instructions of the CPU at run time. `rows` is a row-major matrix, changed in place.

use pulp::Arch;

/// Number of separate accumulators of a reduction. The compiler cannot reorder floating-point sums by itself; with
/// separate accumulators it can vectorise them.
const LANES: usize = 16;

/// The sum of `term` over a row.
#[inline(always)]
fn sum_of(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += term(*x);
        }
    }
    let rest: f32 = rest.iter().map(|x| term(*x)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest element of a row.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let max = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::MIN; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = max(*lane, *x);
        }
    }
    lanes.iter().chain(rest).fold(f32::MIN, |a, b| max(a, *b))
}

/// e^x without a branch or a call, with the polynomial of the Cephes library (`expf`). Relative error about 1e-7. `x`
/// is clamped to -87..87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer.
    let x = x.clamp(-87.0, 87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    let r = x - k * 0.693_359_4 + k * 2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_66;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // Multiply by 2^k: the integer in the low bits becomes the exponent.
    e * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// GELU (Hendrycks and Gimpel 2016): x Φ(x), where Φ is the normal distribution function. erf has an absolute error of
/// at most 1.5e-7 (Abramowitz and Stegun 1964, formula 7.1.26).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
    let tail = 0.5 * p * exp(-z * z); // (1 - erf z) / 2
    if x < 0.0 { x * tail } else { x * (1.0 - tail) }
}

/// Layer normalisation (Ba et al. 2016) of one row: mean 0 and variance 1, then `* gain + bias`.
#[inline(always)]
fn normalise_row(row: &mut [f32], gain: &[f32], bias: &[f32], eps: f32) {
    let scale = 1.0 / row.len() as f32;
    let mean = sum_of(row, |x| x) * scale;
    let variance = sum_of(row, |x| (x - mean) * (x - mean)) * scale;
    let inverse = 1.0 / (variance + eps).sqrt();
    for ((x, gain), bias) in row.iter_mut().zip(gain).zip(bias) {
        *x = (*x - mean) * inverse * gain + bias;
    }
}

/// The parameters of a layer normalisation; `gain` and `bias` have one element per column.
pub(super) struct LayerNorm {
    pub gain: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
}

/// Applies layer normalisation to each row.
pub(super) fn layer_norm(rows: &mut [f32], norm: &LayerNorm) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(norm.gain.len()) {
                normalise_row(row, &norm.gain, &norm.bias, norm.eps);
            }
        },
    );
}

/// Adds bias and residual to each row, then applies layer normalisation. `residual` has the shape of `rows`.
pub(super) fn add_and_norm(rows: &mut [f32], bias: &[f32], residual: &[f32], norm: &LayerNorm) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (row, residual) in rows.chunks_exact_mut(bias.len()).zip(residual.chunks_exact(bias.len())) {
                for ((x, bias), residual) in row.iter_mut().zip(bias).zip(residual) {
                    *x += bias + residual;
                }
                normalise_row(row, &norm.gain, &norm.bias, norm.eps);
            }
        },
    );
}

/// Adds the bias to each row.
pub(super) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        },
    );
}

/// Adds the bias to each row, then applies GELU.
pub(super) fn add_bias_and_gelu(rows: &mut [f32], bias: &[f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x = gelu(*x + bias));
            }
        },
    );
}

/// Applies softmax to each row of `width` elements.
pub(super) fn softmax(rows: &mut [f32], width: usize) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(width) {
                let max = largest(row);
                row.iter_mut().for_each(|x| *x = exp(*x - max));
                let scale = 1.0 / sum_of(row, |x| x);
                row.iter_mut().for_each(|x| *x *= scale);
            }
        },
    );
}

/// The mean of the rows: `width` elements; zeros if there is no row.
pub(super) fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0f32; width];
    let mut count = 0.0f32;
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        count += 1.0;
    }
    mean.iter_mut().for_each(|x| *x /= count.max(1.0));
    mean
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn exp_has_a_relative_error_below_1e_6() {
        for step in -870..=870 {
            let x = step as f32 * 0.1;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((ours - exact) / exact).abs() < 1e-6, "{x}: {ours} {exact}");
        }
        assert!(exp(-1e30) < 1e-37);
    }

    #[test]
    fn gelu_agrees_with_candle() {
        let xs: Vec<f32> = (-100..=100).map(|step| step as f32 * 0.1).collect();
        let exact = candle_core::Tensor::new(xs.as_slice(), &candle_core::Device::Cpu).unwrap().gelu_erf().unwrap();
        for (x, exact) in xs.iter().zip(exact.to_vec1::<f32>().unwrap()) {
            assert!((gelu(*x) - exact).abs() < 2e-6, "{x}");
        }
    }

    #[test]
    fn softmax_and_layer_norm_work_for_rows_of_any_width() {
        for width in [1, 7, 16, 33, 256] {
            let mut rows: Vec<f32> = (0..2 * width).map(|i| (i * 37 % 11) as f32 - 5.0).collect();
            let norm = LayerNorm { gain: vec![1.0; width], bias: vec![0.0; width], eps: 1e-12 };
            let mut soft = rows.clone();
            softmax(&mut soft, width);
            soft.chunks(width).for_each(|row| assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
            if width > 1 {
                layer_norm(&mut rows, &norm);
                rows.chunks(width).for_each(|row| assert!(row.iter().sum::<f32>().abs() < 1e-3));
            }
        }
    }
}
