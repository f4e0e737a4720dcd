//! The exact posterior of sentences given weights per position: the perfect denoiser.

use std::ops::Range;

use rand::{Rng, RngExt};

use super::GrammarRows;
use super::expand::{Alternative, Item};
use super::inside::{Chart, Ends};
use super::weight::{Linear, Log, Weight};

/// Sums of plain numbers below this may have lost significant terms to underflow.
const SMALL: f64 = 1e-200;

/// The posterior distribution of rows; see [`GrammarRows::given`].
#[derive(Debug)]
pub struct Posterior<'r> {
    given: Reckoned<'r>,
    /// Sum of the per-position maxima that were subtracted from the log weights.
    scale: f64,
}

#[derive(Debug)]
enum Reckoned<'r> {
    Linear(Given<'r, Linear>),
    Log(Given<'r, Log>),
}

impl<'r> Posterior<'r> {
    /// Computes the posterior from log weights with a maximum of 0 at each position; `None` if no
    /// row is possible.
    pub(super) fn new(rows: &'r GrammarRows<'r>, weights: &[f64], scale: f64) -> Option<Self> {
        let linear = Given::<Linear>::new(rows, weights);
        let given = if linear.mass.0 > SMALL {
            Reckoned::Linear(linear)
        } else {
            Reckoned::Log(Given::<Log>::new(rows, weights))
        };
        let none = matches!(&given, Reckoned::Log(given) if given.mass.is_none());
        (!none).then_some(Self { given, scale })
    }

    /// Returns ln Σ p(x)·Π exp(wᵢ(xᵢ)), in nats.
    ///
    /// With weights of 0 and −∞ it is the log-probability that a sentence fits into the row and
    /// agrees with the known symbols.
    pub fn log_mass(&self) -> f64 {
        let log = match &self.given {
            Reckoned::Linear(given) => given.mass.ln(),
            Reckoned::Log(given) => given.mass.ln(),
        };
        log + self.scale
    }

    /// Returns the probability of every symbol at every position, `[length, symbols]`.
    pub fn marginals(&self) -> Vec<f64> {
        match &self.given {
            Reckoned::Linear(given) => given.marginals(),
            Reckoned::Log(given) => given.marginals(),
        }
    }

    /// Draws a row of symbols, `[length]`, from the distribution.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<usize> {
        match &self.given {
            Reckoned::Linear(given) => given.draw(rng),
            Reckoned::Log(given) => given.draw(rng),
        }
    }
}

#[derive(Debug)]
struct Given<'r, W> {
    rows: &'r GrammarRows<'r>,
    chart: Chart<'r, W>,
    /// Weights of symbols at positions, `[length, symbols]`.
    weights: Vec<W>,
    /// End positions of sentences, each with the total weight of the rows whose sentence
    /// ends there.
    ends: Ends<W>,
    mass: W,
}

impl<'r, W: Weight> Given<'r, W> {
    fn new(rows: &'r GrammarRows<'r>, logs: &[f64]) -> Self {
        let weights: Vec<W> = logs.iter().map(|log| W::from_log(*log)).collect();
        let symbols = rows.symbols();
        let chart = Chart::new(
            &rows.grammar.nodes,
            rows.length,
            |start| &rows.candidates[start],
            |place, word| weights[place * symbols + word as usize],
        );
        let mut mass = W::NONE;
        let mut ends = Ends::new();
        for &(end, inside) in &chart.arena[chart.sentences()] {
            // The end symbol and the padding after the words.
            let mut behind = end as usize..rows.length;
            let Some(first) = behind.next() else { continue };
            let after = weights[first * symbols + rows.end()];
            let weight = behind.fold(inside.times(after), |weight, place| {
                weight.times(weights[place * symbols + rows.padding()])
            });
            if !weight.is_none() {
                mass = mass.plus(weight);
                ends.push((end, weight));
            }
        }
        Self {
            rows,
            chart,
            weights,
            ends,
            mass,
        }
    }

    fn weigh(&self, place: usize, word: u32) -> W {
        self.weights[place * self.rows.symbols() + word as usize]
    }

    /// Returns, for each item of an alternative from `start`, the possible ends of the items before
    /// it. The last entry holds the ends of the whole alternative.
    fn prefixes(&self, alternative: &Alternative, start: u32) -> Vec<Ends<W>> {
        let mut prefixes = vec![vec![(start, W::of(alternative))]];
        for item in &alternative.items {
            let mut reached = Ends::new();
            let before = &prefixes[prefixes.len() - 1];
            let weigh = |place, word| self.weigh(place, word);
            self.chart
                .advance(*item, before, &mut reached, self.rows.length, &weigh);
            prefixes.push(reached);
        }
        prefixes
    }

    /// Computes the marginals by the outside algorithm. The outside weight of a span is the
    /// derivative of the total mass with respect to the span's inside weight.
    fn marginals(&self) -> Vec<f64> {
        let (symbols, length) = (self.rows.symbols(), self.rows.length);
        let mut probabilities = vec![0.0; length * symbols];
        for &(end, weight) in &self.ends {
            let share = weight.share(self.mass);
            probabilities[end as usize * symbols + self.rows.end()] += share;
            for place in end as usize + 1..length {
                probabilities[place * symbols + self.rows.padding()] += share;
            }
        }
        let mut outside = vec![W::NONE; self.chart.arena.len()];
        let sentences = self.chart.sentences();
        let around = &mut outside[sentences.clone()];
        for (around, (end, inside)) in around.iter_mut().zip(&self.chart.arena[sentences]) {
            if let Some((_, whole)) = self.ends.iter().find(|(other, _)| other == end) {
                *around = whole.over(*inside);
            }
        }
        for start in 0..=length as u32 {
            for &node in self.rows.candidates[start as usize].iter().rev() {
                let span = self.chart.span(node, start);
                if outside[span.clone()].iter().all(|weight| weight.is_none()) {
                    continue;
                }
                for alternative in &self.chart.nodes[node as usize] {
                    self.spread(
                        alternative,
                        start,
                        span.clone(),
                        &mut outside,
                        &mut probabilities,
                    );
                }
            }
        }
        probabilities
    }

    /// Propagates a node's outside weights to the items of one of its alternatives, and adds the
    /// probabilities of its words.
    fn spread(
        &self,
        alternative: &Alternative,
        start: u32,
        span: Range<usize>,
        outside: &mut [W],
        probabilities: &mut [f64],
    ) {
        let prefixes = self.prefixes(alternative, start);
        // The node's outside weight times the items after the current one, by the end of the
        // current item.
        let mut behind: Ends<W> = self.chart.arena[span.clone()]
            .iter()
            .zip(&outside[span])
            .map(|((end, _), around)| (*end, *around))
            .collect();
        for (item, before) in alternative.items.iter().zip(&prefixes).rev() {
            let at = |place: u32| {
                behind
                    .iter()
                    .find(|(end, _)| *end == place)
                    .map(|(_, w)| *w)
            };
            let mut further = Ends::new();
            for &(place, left) in before {
                let mut around = W::NONE;
                match *item {
                    Item::Word(word) => {
                        if let Some(right) = at(place + 1) {
                            around = right.times(self.weigh(place as usize, word));
                            probabilities[place as usize * self.rows.symbols() + word as usize] +=
                                left.times(around).share(self.mass);
                        }
                    }
                    Item::Node(child) => {
                        for at_arena in self.chart.span(child, place) {
                            let (end, inside) = self.chart.arena[at_arena];
                            if let Some(right) = at(end) {
                                around = around.plus(right.times(inside));
                                outside[at_arena] = outside[at_arena].plus(left.times(right));
                            }
                        }
                    }
                }
                if !around.is_none() {
                    further.push((place, around));
                }
            }
            behind = further;
        }
    }

    fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<usize> {
        let mut row = vec![self.rows.padding(); self.rows.length];
        let (end, _) = self.ends[pick(rng, self.ends.iter().map(|(_, weight)| *weight))];
        row[end as usize] = self.rows.end();
        let mut open = vec![(self.chart.nodes.len() as u32 - 1, 0, end)];
        while let Some((node, start, end)) = open.pop() {
            let ways: Vec<(&Alternative, Vec<Ends<W>>)> = self.chart.nodes[node as usize]
                .iter()
                .map(|alternative| (alternative, self.prefixes(alternative, start)))
                .collect();
            let up_to = |prefixes: &[Ends<W>], place: u32| {
                let last = prefixes.last().into_iter().flatten();
                last.filter(|(end, _)| *end == place)
                    .fold(W::NONE, |sum, (_, weight)| sum.plus(*weight))
            };
            let chosen = pick(rng, ways.iter().map(|(_, prefixes)| up_to(prefixes, end)));
            let (alternative, prefixes) = &ways[chosen];
            // Draw the start of each item, from the last item back.
            let mut end = end;
            for (item, before) in alternative.items.iter().zip(prefixes).rev() {
                match *item {
                    Item::Word(word) => {
                        end -= 1;
                        row[end as usize] = word as usize;
                    }
                    Item::Node(child) => {
                        let part = |place: u32| {
                            let ends = &self.chart.arena[self.chart.span(child, place)];
                            ends.iter()
                                .find(|(to, _)| *to == end)
                                .map_or(W::NONE, |(_, w)| *w)
                        };
                        let weights = before.iter().map(|(place, left)| left.times(part(*place)));
                        let (place, _) = before[pick(rng, weights)];
                        open.push((child, place, end));
                        end = place;
                    }
                }
            }
        }
        row
    }
}

/// Draws an index in proportion to the weights.
fn pick<W: Weight, R: Rng + ?Sized>(
    rng: &mut R,
    weights: impl Iterator<Item = W> + Clone,
) -> usize {
    let whole = weights.clone().fold(W::NONE, W::plus);
    let mut left: f64 = rng.random();
    let mut last = 0;
    for (index, weight) in weights.enumerate().filter(|(_, weight)| !weight.is_none()) {
        last = index;
        left -= weight.share(whole);
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::HashMap;

    use super::*;
    use crate::Grammar;
    use crate::grammar::enumerate::{random_grammar, strings};

    /// Enumerates all rows of a small grammar with their probabilities under the weights. Also
    /// returns the logarithm of the total weight.
    fn enumerated(
        grammar: &Grammar,
        rows: &GrammarRows<'_>,
        weights: &[f64],
    ) -> (HashMap<Vec<usize>, f64>, f64) {
        let mut found = HashMap::new();
        for (string, p) in strings(grammar) {
            if string.len() >= rows.length() {
                continue;
            }
            let mut row: Vec<usize> = string
                .iter()
                .map(|word| grammar.ids[word] as usize)
                .collect();
            row.push(rows.end());
            row.resize(rows.length(), rows.padding());
            let weight: f64 = (row.iter().enumerate())
                .map(|(place, symbol)| weights[place * rows.symbols() + symbol])
                .sum();
            found.insert(row, p.ln() + weight);
        }
        let largest = found.values().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return (HashMap::new(), largest);
        }
        let sum: f64 = found.values().map(|log| (log - largest).exp()).sum();
        let mass = largest + sum.ln();
        let probabilities = found
            .into_iter()
            .map(|(row, log)| (row, (log - mass).exp()));
        (probabilities.collect(), mass)
    }

    fn check(grammar: &Grammar, length: usize, weights: &[f64]) -> Result<(), TestCaseError> {
        let rows = grammar.rows(length);
        let (probabilities, mass) = enumerated(grammar, &rows, weights);
        // Each of a few hundred terms is rounded to 1e-16 of itself. The tolerance is far
        // above that.
        let Some(posterior) = rows.given(weights) else {
            prop_assert_eq!(mass, f64::NEG_INFINITY);
            return Ok(());
        };
        prop_assert!((posterior.log_mass() - mass).abs() < 1e-9 * (1.0 + mass.abs()));
        let mut expected = vec![0.0; length * rows.symbols()];
        for (row, probability) in &probabilities {
            for (place, symbol) in row.iter().enumerate() {
                expected[place * rows.symbols() + symbol] += probability;
            }
        }
        for (found, expected) in posterior.marginals().iter().zip(&expected) {
            prop_assert!(
                (found - expected).abs() < 1e-9,
                "{found} against {expected}"
            );
        }
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20 {
            let row = posterior.draw(&mut rng);
            prop_assert!(
                probabilities
                    .get(&row)
                    .is_some_and(|probability| *probability > 0.0),
                "{row:?}"
            );
        }
        Ok(())
    }

    const CITIES: &str =
        "start S\nS -> A b A @2 | B B | a A @3\nA -> () | a @2 | B\nB -> () | b | a b";

    proptest! {
        #[test]
        fn what_is_given_agrees_with_enumeration(
            weights in prop::collection::vec(prop_oneof![3 => -3.0..3.0, 1 => Just(f64::NEG_INFINITY)], 6 * 4),
            length in 1_usize..=6,
        ) {
            let grammar = Grammar::parse(CITIES).unwrap();
            check(&grammar, length, &weights[..length * 4])?;
        }

        #[test]
        fn and_where_plain_numbers_would_be_too_small(
            weights in prop::collection::vec(-900.0..0.0, 6 * 4),
        ) {
            let grammar = Grammar::parse(CITIES).unwrap();
            check(&grammar, 6, &weights)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn random_grammars_agree_with_enumeration(
            text in random_grammar(),
            weights in prop::collection::vec(-3.0..3.0, 5 * 4),
        ) {
            let grammar = Grammar::parse(&text).unwrap();
            let symbols = grammar.words().len() + 2;
            check(&grammar, 5, &weights[..5 * symbols])?;
        }
    }

    #[test]
    fn both_ways_of_reckoning_agree() {
        let grammar = Grammar::parse(CITIES).unwrap();
        let rows = grammar.rows(6);
        // Masses of about 1 to 1e-150, which plain numbers still represent.
        for scale in [0.1, 1.0, 10.0, 25.0] {
            let weights: Vec<f64> = (0..24).map(|i| -scale * f64::from(i * 7 % 5)).collect();
            let linear = Given::<Linear>::new(&rows, &weights);
            let log = Given::<Log>::new(&rows, &weights);
            assert!(linear.mass.0 > SMALL && (linear.mass.ln() - log.mass.ln()).abs() < 1e-9);
            for (linear, log) in linear.marginals().iter().zip(log.marginals()) {
                assert!((linear - log).abs() < 1e-9, "{linear} {log}");
            }
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let grammar = Grammar::parse(CITIES).unwrap();
        let rows = grammar.rows(6);
        let weights: Vec<f64> = (0..24).map(|i| f64::from(i * 7 % 5) / 3.0).collect();
        let (probabilities, _) = enumerated(&grammar, &rows, &weights);
        let posterior = rows.given(&weights).unwrap();
        let (n, mut rng) = (100_000, ChaCha8Rng::seed_from_u64(2));
        let mut counts: HashMap<Vec<usize>, f64> = HashMap::new();
        for _ in 0..n {
            *counts.entry(posterior.draw(&mut rng)).or_default() += 1.0 / f64::from(n);
        }
        // Hoeffding: one row deviates by more with probability 2·exp(−2nδ²); all together 1e-9.
        let delta = ((2.0 * probabilities.len() as f64 / 1e-9).ln() / (2.0 * f64::from(n))).sqrt();
        for (row, probability) in probabilities {
            let share = counts.remove(&row).unwrap_or_default();
            assert!(
                (share - probability).abs() < delta,
                "{row:?}: {share} against {probability}"
            );
        }
        assert!(counts.is_empty(), "impossible: {counts:?}");
    }

    #[test]
    fn a_sentence_that_is_known_has_its_own_probability() {
        let grammar = Grammar::small_english();
        let rows = grammar.rows(22);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..20 {
            let sentence = grammar.sample(&mut rng);
            let mut weights = vec![f64::NEG_INFINITY; 22 * rows.symbols()];
            for place in 0..22 {
                let symbol = match sentence.get(place) {
                    Some(word) => grammar.ids[*word] as usize,
                    None if place == sentence.len() => rows.end(),
                    None => rows.padding(),
                };
                weights[place * rows.symbols() + symbol] = 0.0;
            }
            let posterior = rows.given(&weights).unwrap();
            let expected = grammar.log_prob(&sentence).unwrap();
            assert!((posterior.log_mass() - expected).abs() < 1e-9);
        }
        // If nothing is known, the mass is one.
        let nothing = rows.given(&vec![0.0; 22 * rows.symbols()]).unwrap();
        assert!(nothing.log_mass().abs() < 1e-9, "{}", nothing.log_mass());
    }
}
