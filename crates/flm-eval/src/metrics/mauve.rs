//! MAUVE: the closeness of two sets of texts, in both directions.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Mixtures on the divergence curve, not counting the end points (1, 0) and (0, 1).
const POINTS: usize = 25;
/// Divergences are multiplied by this factor before exponentiation.
const SCALE: f64 = 5.0;
/// Texts of one set per cluster.
const TEXTS: usize = 10;
/// Number of clusterings, of which the best is used.
const STARTS: usize = 5;
/// Limit on the rounds of a clustering.
const ROUNDS: usize = 100;
/// Number of bootstrap resamples for the standard error.
const RESAMPLES: usize = 200;

/// The closeness of the distribution of samples to that of texts, from 0 to 1.
///
/// A value of 1 means that all clusters have equal shares of samples and texts.
///
/// The features of all texts, one vector each, are clustered by k-means. Let p and q be the shares
/// of the clusters among samples and texts, and r = λp + (1−λ)q. The points (exp(−5·KL(q‖r)),
/// exp(−5·KL(p‖r))) for λ from 0 to 1 form a curve, and MAUVE is the area under it ([Pillutla et
/// al. 2021](https://arxiv.org/abs/2102.01454)). It falls both for samples unlike any text and for
/// kinds of texts that the samples lack.
///
/// It depends on the number of texts and on the features, so compare equal numbers under one model.
/// It follows the paper with one difference: features are scaled to length 1 and not reduced to
/// principal components.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mauve {
    /// The area under the curve.
    pub value: f64,
    /// The bootstrap standard error: the standard deviation over resamples of both sets, drawn with
    /// replacement, with the clusters kept.
    pub std_err: f64,
    /// Number of texts in each set.
    pub texts: usize,
    /// Number of clusters.
    pub clusters: usize,
}

impl Mauve {
    /// Compares equal numbers of samples and texts by their features.
    ///
    /// # Panics
    ///
    /// Panics if the sets differ in size, have fewer than two texts, or have features of
    /// different lengths.
    pub fn of<R: Rng + ?Sized>(samples: &[Vec<f32>], texts: &[Vec<f32>], rng: &mut R) -> Self {
        let count = texts.len();
        assert!(
            samples.len() == count && count > 1,
            "expected equal numbers of at least two texts, found {} and {count}",
            samples.len()
        );
        let lengths = samples.iter().chain(texts).map(Vec::len);
        assert!(
            lengths.clone().min() == lengths.max(),
            "all features must have the same length"
        );
        let points: Vec<Vec<f32>> = samples.iter().chain(texts).map(|x| unit(x)).collect();
        let clusters = (count / TEXTS).max(2);
        let places = (0..STARTS)
            .map(|_| k_means(&points, clusters, rng))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("there is at least one clustering")
            .0;
        let (of_samples, of_texts) = places.split_at(count);
        let value = area(&shares(of_samples, clusters), &shares(of_texts, clusters));
        let mut again = |places: &[usize]| {
            let drawn: Vec<usize> = (0..count)
                .map(|_| places[rng.random_range(0..count)])
                .collect();
            shares(&drawn, clusters)
        };
        let values: Vec<f64> = (0..RESAMPLES)
            .map(|_| area(&again(of_samples), &again(of_texts)))
            .collect();
        let mean = values.iter().sum::<f64>() / RESAMPLES as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            value,
            std_err: (squares / (RESAMPLES - 1) as f64).sqrt(),
            texts: count,
            clusters,
        }
    }
}

/// Scales a vector to length 1. A zero vector stays zero.
fn unit(x: &[f32]) -> Vec<f32> {
    let length = x
        .iter()
        .map(|x| x * x)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    x.iter().map(|x| x / length).collect()
}

fn shares(places: &[usize], clusters: usize) -> Vec<f64> {
    let mut shares = vec![0.0; clusters];
    for &place in places {
        shares[place] += 1.0 / places.len() as f64;
    }
    shares
}

/// Returns the area under the divergence curve of two distributions.
fn area(p: &[f64], q: &[f64]) -> f64 {
    let point = |i: usize| {
        let weight = i as f64 / (POINTS - 1) as f64;
        let mixed: Vec<f64> = (p.iter().zip(q))
            .map(|(p, q)| weight * p + (1.0 - weight) * q)
            .collect();
        [q, p].map(|side| (-SCALE * divergence(side, &mixed)).exp())
    };
    // The curve runs from r = q, (1, least), to r = p, (least, 1).
    let curve = std::iter::once([1.0, 0.0])
        .chain((0..POINTS).map(point))
        .chain([[0.0, 1.0]]);
    let curve: Vec<[f64; 2]> = curve.collect();
    curve
        .windows(2)
        .map(|ends| (ends[0][0] - ends[1][0]) * (ends[0][1] + ends[1][1]) / 2.0)
        .sum()
}

/// Returns KL(p‖r), which is infinite if r is 0 where p is not.
fn divergence(p: &[f64], r: &[f64]) -> f64 {
    let terms = p.iter().zip(r).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, r)| p * (p / r).ln()).sum()
}

/// Clusters points by Lloyd's algorithm with k-means++ initialization. Returns the cluster of each
/// point and the sum of squared distances to the centres.
fn k_means<R: Rng + ?Sized>(
    points: &[Vec<f32>],
    clusters: usize,
    rng: &mut R,
) -> (Vec<usize>, f64) {
    let mut centres = first_centres(points, clusters, rng);
    let mut places = vec![usize::MAX; points.len()];
    for _ in 0..ROUNDS {
        let nearest: Vec<usize> = points.iter().map(|x| nearest(x, &centres).0).collect();
        if nearest == places {
            break;
        }
        places = nearest;
        let mut sums = vec![vec![0.0_f32; points[0].len()]; clusters];
        let mut counts = vec![0_usize; clusters];
        for (point, &place) in points.iter().zip(&places) {
            counts[place] += 1;
            for (sum, x) in sums[place].iter_mut().zip(point) {
                *sum += x;
            }
        }
        for ((centre, sum), count) in centres.iter_mut().zip(sums).zip(counts) {
            // An empty cluster keeps its centre.
            if count > 0 {
                *centre = sum.into_iter().map(|x| x / count as f32).collect();
            }
        }
    }
    let within = points.iter().zip(&places);
    let within = within.map(|(x, &place)| f64::from(squared_distance(x, &centres[place])));
    (places.clone(), within.sum())
}

/// Draws the initial centres of k-means++. Each point is drawn in proportion to its squared
/// distance to the nearest earlier centre.
fn first_centres<R: Rng + ?Sized>(
    points: &[Vec<f32>],
    clusters: usize,
    rng: &mut R,
) -> Vec<Vec<f32>> {
    let mut centres = vec![points[rng.random_range(0..points.len())].clone()];
    let mut away: Vec<f64> = vec![f64::INFINITY; points.len()];
    while centres.len() < clusters {
        let last = &centres[centres.len() - 1];
        for (away, point) in away.iter_mut().zip(points) {
            *away = away.min(f64::from(squared_distance(point, last)));
        }
        let mut left = rng.random::<f64>() * away.iter().sum::<f64>();
        let next = away.iter().position(|away| {
            left -= away;
            left < 0.0
        });
        centres.push(points[next.unwrap_or(points.len() - 1)].clone());
    }
    centres
}

fn nearest(x: &[f32], centres: &[Vec<f32>]) -> (usize, f32) {
    let distances = centres.iter().map(|centre| squared_distance(x, centre));
    distances
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .expect("there is at least one centre")
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const DIMENSIONS: usize = 6;

    /// Features of well-separated kinds of texts with these shares.
    fn features(shares: &[f64], count: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = || {
            let mut left: f64 = rng.random();
            let kind = shares.iter().position(|share| {
                left -= share;
                left < 0.0
            });
            let kind = kind.unwrap_or(shares.len() - 1);
            let value = |i: usize| if i == kind { 1.0 } else { 0.0 };
            let noise = 0.05_f32;
            (0..DIMENSIONS)
                .map(|i| value(i) + rng.random_range(-noise..noise))
                .collect()
        };
        (0..count).map(|_| text()).collect()
    }

    fn mauve(a: &[f64], b: &[f64]) -> Mauve {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        Mauve::of(&features(a, 400, 1), &features(b, 400, 2), &mut rng)
    }

    #[test]
    fn the_area_is_one_of_equals_and_nothing_of_strangers() {
        let p = [0.5, 0.3, 0.2];
        assert!((area(&p, &p) - 1.0).abs() < 1e-12);
        let apart = area(&[1.0, 0.0], &[0.0, 1.0]);
        // The points are ((1−λ)⁵, λ⁵): exp(−5·ln(1/w)) = w⁵.
        let x = |i: usize| (1.0 - i as f64 / 24.0).powi(5);
        let y = |i: usize| (i as f64 / 24.0).powi(5);
        let strips = (0..24).map(|i| (x(i) - x(i + 1)) * (y(i) + y(i + 1)) / 2.0);
        let exact: f64 = strips.sum();
        assert!((apart - exact).abs() < 1e-12, "{apart} {exact}");
        assert!((exact - 1.0 / 252.0).abs() < 1e-3);
        let (a, b) = ([0.7, 0.2, 0.1], [0.1, 0.4, 0.5]);
        assert!((area(&a, &b) - area(&b, &a)).abs() < 1e-12);
    }

    #[test]
    fn it_falls_for_what_is_missing_and_for_what_does_not_belong() {
        let text = [0.25, 0.25, 0.25, 0.25];
        let same = mauve(&text, &text);
        let missing = mauve(&[0.5, 0.5], &text);
        let more = mauve(&[0.2, 0.2, 0.2, 0.2, 0.2], &text);
        let other = mauve(&[0.0, 0.0, 0.0, 0.0, 0.5, 0.5], &text);
        assert_eq!((same.texts, same.clusters), (400, 40));
        assert!(same.value > 0.8, "{same:?}");
        assert!(
            missing.value < same.value - 5.0 * same.std_err,
            "{missing:?}"
        );
        assert!(
            more.value < same.value && more.value > missing.value,
            "{more:?}"
        );
        assert!(other.value < 0.02, "{other:?}");
    }

    #[test]
    fn its_standard_error_is_that_of_new_texts() {
        let (a, b) = ([0.4, 0.3, 0.3], [0.2, 0.4, 0.4]);
        let values: Vec<Mauve> = (0..12)
            .map(|i| {
                let mut rng = ChaCha8Rng::seed_from_u64(i);
                let (a, b) = (features(&a, 200, 100 + i), features(&b, 200, 200 + i));
                Mauve::of(&a, &b, &mut rng)
            })
            .collect();
        let n = values.len() as f64;
        let mean = values.iter().map(|mauve| mauve.value).sum::<f64>() / n;
        let squares = values.iter().map(|mauve| (mauve.value - mean).powi(2));
        let spread = (squares.sum::<f64>() / (n - 1.0)).sqrt();
        let said = values.iter().map(|mauve| mauve.std_err).sum::<f64>() / n;
        // Twelve sets estimate a standard deviation to about 20 %, and new sets also get
        // new clusters.
        assert!(
            said > 0.4 * spread && said < 2.5 * spread,
            "{said} {spread}"
        );
    }

    #[test]
    fn clusters_are_those_that_lie_apart() {
        let points = features(&[0.3, 0.3, 0.4], 90, 5);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let best = (0..STARTS).map(|_| k_means(&points, 3, &mut rng));
        let (places, within) = best.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert!(within < 90.0 * DIMENSIONS as f64 * 0.05_f64.powi(2));
        for (a, x) in places.iter().zip(&points) {
            for (b, y) in places.iter().zip(&points) {
                assert_eq!(a == b, squared_distance(x, y) < 0.5);
            }
        }
    }
}
