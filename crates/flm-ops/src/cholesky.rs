//! The Cholesky factor of a Gram matrix.

use crate::cube;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use nalgebra::DMatrix;

/// Larger matrices are factored by halves, which are matrix products.
const SMALL: usize = 48;
/// A pivot that is a smaller share of its diagonal entry is rounding in single precision.
pub(crate) const RANK: f64 = 1e-5;
/// The smallest pivot, so that a matrix of zeros has a factor too.
pub(crate) const LEAST: f64 = 1e-30;

/// Returns R and R⁻¹ of a symmetric positive semidefinite matrix, `[size, size]`, with R upper
/// triangular and RᵀR equal to the matrix. Only the entries on and above the diagonal are read. No
/// gradient flows to or from them.
///
/// A pivot below 10⁻⁵ of its column's diagonal entry is rounding. It is set to that value and the
/// rest of its row of R to zero, so that R can always be inverted. RᵀR then differs from the matrix
/// by as little. NaN inputs give NaN in R.
///
/// The host computes in double precision. A GPU computes f32 matrices outside of a graph in single
/// precision, without synchronization.
///
/// # Panics
///
/// Panics if the matrix is not square.
pub fn cholesky<B: Backend>(matrix: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
    let [rows, columns] = matrix.dims();
    assert!(
        rows == columns,
        "cholesky: the matrix must be square, found shape [{rows}, {columns}]"
    );
    cube::cholesky(matrix)
}

pub(crate) fn on_host<B: Backend>(matrix: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
    let ([size, _], device) = (matrix.dims(), matrix.device());
    let values: Vec<f64> = matrix.into_data().iter::<f64>().collect();
    let matrix = DMatrix::from_row_slice(size, size, &values);
    let least: Vec<f64> = (0..size)
        .map(|i| (RANK * matrix[(i, i)]).max(LEAST).sqrt())
        .collect();
    let (root, inverse) = halves(&matrix, &least);
    [root, inverse].map(|x| {
        let values: Vec<f32> = x.transpose().iter().map(|value| *value as f32).collect();
        Tensor::from_data(TensorData::new(values, [size, size]), &device)
    })
}

/// Returns R and R⁻¹ by halves, so that most of the work is matrix products. No diagonal entry of R
/// is below that of `least`.
fn halves(matrix: &DMatrix<f64>, least: &[f64]) -> (DMatrix<f64>, DMatrix<f64>) {
    let n = matrix.nrows();
    if n <= SMALL {
        return by_rows(matrix.clone(), least);
    }
    let (half, rest) = (n / 2, n - n / 2);
    let part = |from, size| matrix.view(from, size).into_owned();
    let (root, inverse) = halves(&part((0, 0), (half, half)), &least[..half]);
    let mut corner = inverse.transpose() * part((0, half), (half, rest));
    for (i, mut row) in corner.row_iter_mut().enumerate() {
        if root[(i, i)] == least[i] {
            row.fill(0.0);
        }
    }
    let left = part((half, half), (rest, rest)) - corner.transpose() * &corner;
    let (root2, inverse2) = halves(&left, &least[half..]);
    let inverse_corner = -(&inverse * &corner) * &inverse2;
    (
        triangle(&root, &corner, &root2),
        triangle(&inverse, &inverse_corner, &inverse2),
    )
}

/// Returns R and R⁻¹, computed row by row.
fn by_rows(mut left: DMatrix<f64>, least: &[f64]) -> (DMatrix<f64>, DMatrix<f64>) {
    let n = left.nrows();
    let mut root = DMatrix::zeros(n, n);
    for i in 0..n {
        let pivot = left[(i, i)];
        if pivot < least[i] * least[i] {
            root[(i, i)] = least[i];
            continue;
        }
        root[(i, i)] = pivot.sqrt();
        for j in i + 1..n {
            root[(i, j)] = left[(i, j)] / root[(i, i)];
        }
        for j in i + 1..n {
            for k in j..n {
                left[(j, k)] -= root[(i, j)] * root[(i, k)];
            }
        }
    }
    let inverse = root.solve_upper_triangular(&DMatrix::identity(n, n));
    (root, inverse.expect("a diagonal without zeros"))
}

/// Builds an upper triangular matrix from its blocks.
fn triangle(first: &DMatrix<f64>, corner: &DMatrix<f64>, second: &DMatrix<f64>) -> DMatrix<f64> {
    let (half, rest) = corner.shape();
    let mut whole = DMatrix::zeros(half + rest, half + rest);
    whole.view_mut((0, 0), (half, half)).copy_from(first);
    whole.view_mut((0, half), (half, rest)).copy_from(corner);
    whole.view_mut((half, half), (rest, rest)).copy_from(second);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn drawn(shape: [usize; 2]) -> Tensor<Flex, 2> {
        let mut rng = ChaCha8Rng::seed_from_u64(shape[1] as u64);
        let values = (0..shape[0] * shape[1]).map(|_| rng.random_range(-1.0..1.0));
        let values: Vec<f32> = values.collect();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    /// Returns the largest entry of |`a` − `b`|.
    fn error(a: Tensor<Flex, 2>, b: Tensor<Flex, 2>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn a_root_squared_is_the_matrix_at_any_size() {
        // Below, at and above the size from which matrices are factored by halves, odd and even.
        for size in [1, 2, 48, 49, 97, 130] {
            let x = drawn([3 * size, size]);
            let gram = x.clone().transpose().matmul(x);
            let [root, inverse] = cholesky(gram.clone());
            let squared = root.clone().transpose().matmul(root.clone());
            let largest: f32 = gram.clone().abs().max().into_scalar();
            assert!(error(squared, gram) < 1e-5 * largest, "size {size}");
            let one = Tensor::eye(size, &Default::default());
            assert!(
                error(root.clone().matmul(inverse), one) < 1e-4,
                "size {size}"
            );
            assert_eq!(error(root.clone().triu(0), root), 0.0, "size {size}");
        }
    }

    #[test]
    fn directions_without_extent_have_a_small_root_of_their_own() {
        // Within rows, and across halves.
        for size in [6, 40] {
            let part = drawn([3 * size, size]);
            let x = Tensor::cat(vec![part.clone(), part.clone(), part], 1);
            let gram = x.clone().transpose().matmul(x);
            let [root, inverse] = cholesky(gram.clone());
            let squared = root.clone().transpose().matmul(root.clone());
            let largest: f32 = gram.clone().abs().max().into_scalar();
            assert!(error(squared, gram) < 1e-4 * largest, "size {size}");
            let beside = root.clone().narrow(0, size, 2 * size).triu(size as i64 + 1);
            assert_eq!(beside.abs().max().into_scalar(), 0.0, "size {size}");
            let one = Tensor::eye(3 * size, &Default::default());
            assert!(error(root.matmul(inverse), one) < 1e-3, "size {size}");
        }
    }

    #[test]
    fn nothing_has_a_root_and_what_is_no_number_has_one_of_none() {
        let device = Default::default();
        let [root, inverse] = cholesky(Tensor::<Flex, 2>::zeros([3, 3], &device));
        let finite = |x: Tensor<Flex, 2>| x.into_data().iter::<f32>().all(f32::is_finite);
        assert!(root.clone().max().into_scalar() < 1e-3);
        assert!(finite(root) && finite(inverse));
        let [root, _] = cholesky(Tensor::<Flex, 2>::full([60, 60], f32::NAN, &device));
        let values: Vec<f32> = root.into_data().to_vec().unwrap();
        let above = values.iter().enumerate().filter(|(i, _)| i / 60 <= i % 60);
        assert!(above.map(|(_, value)| value).all(|value| value.is_nan()));
    }

    #[test]
    fn what_is_below_the_diagonal_is_not_read() {
        let x = drawn([200, 60]);
        let gram = x.clone().transpose().matmul(x);
        let [expected, _] = cholesky(gram.clone());
        let above = Tensor::<Flex, 2>::ones([60, 60], &Default::default()).triu(0);
        let half = gram.mask_fill(above.equal_elem(0.0), f32::NAN);
        let [root, _] = cholesky(half);
        assert_eq!(error(root, expected), 0.0);
    }

    #[test]
    #[should_panic(expected = "the matrix must be square, found shape [3, 2]")]
    fn a_matrix_that_is_not_square_has_none() {
        let _ = cholesky(Tensor::<Flex, 2>::zeros([3, 2], &Default::default()));
    }
}
