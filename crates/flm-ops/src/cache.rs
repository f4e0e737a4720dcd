//! Attention of the next positions of a sequence, with cached keys and values.

use crate::{Attention, Rope, check_attention, reference};
use burn::tensor::{Tensor, backend::Backend};

/// Rotated keys and values of the positions so far, each `[batch, heads, positions, head_width]`.
#[derive(Clone, Debug, Default)]
pub struct KeysAndValues<B: Backend>(Option<[Tensor<B, 4>; 2]>);

impl<B: Backend> KeysAndValues<B> {
    /// Creates an empty cache.
    pub fn new() -> Self {
        Self(None)
    }

    /// Returns the number of positions.
    pub fn positions(&self) -> usize {
        self.0.as_ref().map_or(0, |[keys, _]| keys.dims()[2])
    }

    /// Adds further positions, and returns all.
    fn extend(&mut self, new: [Tensor<B, 4>; 2]) -> [Tensor<B, 4>; 2] {
        let all = match self.0.take() {
            None => new,
            Some([keys, values]) => {
                let [new_keys, new_values] = new;
                [
                    Tensor::cat(vec![keys, new_keys], 2),
                    Tensor::cat(vec![values, new_values], 2),
                ]
            }
        };
        self.0.insert(all).clone()
    }
}

/// [`attention`](crate::attention) of the positions after those of `past`; the new positions are
/// added to `past`.
///
/// The tables of `rope` must be those of the new positions ([`Rope::after`]). Causal attention over
/// a sequence in pieces equals that over the whole sequence, up to rounding. It is a composition on
/// every backend, because with few queries the time goes into reading keys and values.
///
/// # Panics
///
/// As [`attention`](crate::attention), or if `past` has another batch or width.
pub fn attention_after<B: Backend>(
    qkv: Tensor<B, 3>,
    rope: &Rope<B>,
    attention: Attention,
    past: &mut KeysAndValues<B>,
) -> Tensor<B, 3> {
    check_attention(&qkv, rope, attention.heads);
    let [query, key, value] = reference::heads(qkv, rope, attention);
    let [keys, values] = past.extend([key, value]);
    reference::mixed([query, keys, values], attention)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};
    use burn_flex::Flex;

    #[test]
    fn a_sequence_in_pieces_is_the_whole() {
        let device = Default::default();
        let attention = Attention {
            heads: 2,
            softcap: 5.0,
            causal: true,
        };
        let qkv = Tensor::<Flex, 3>::random([3, 11, 24], Distribution::Normal(0.0, 2.0), &device);
        let whole = crate::attention(qkv.clone(), &Rope::new(11, 4, 100.0, &device), attention);
        for pieces in [vec![11], vec![1; 11], vec![4, 1, 6]] {
            let (mut past, mut found) = (KeysAndValues::new(), Vec::new());
            for count in pieces {
                let first = past.positions();
                let rope = Rope::after(first, count, 4, 100.0, &device);
                let piece = qkv.clone().narrow(1, first, count);
                found.push(attention_after(piece, &rope, attention, &mut past));
            }
            assert_eq!(past.positions(), 11);
            // Sums of eleven products of numbers of order one, in different orders.
            Tensor::cat(found, 1)
                .into_data()
                .assert_approx_eq::<f32>(&whole.to_data(), Tolerance::absolute(1e-5));
        }
    }
}
