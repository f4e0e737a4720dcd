//! Checks of argument shapes, before a kernel turns tensors into slices of rows.

/// Panics unless an argument has the shape that another argument requires.
#[track_caller]
pub(crate) fn shape(
    operation: &str,
    argument: &str,
    found: &[usize],
    expected: &[usize],
    other: (&str, &[usize]),
) {
    let (name, shape) = other;
    assert!(
        found == expected,
        "{operation}: {argument} must have shape {expected:?} to match {name} of shape {shape:?}, found {found:?}"
    );
}

/// Panics if a tensor has no values.
#[track_caller]
pub(crate) fn not_empty(operation: &str, argument: &str, found: &[usize]) {
    assert!(
        !found.contains(&0),
        "{operation}: {argument} must not be empty, found shape {found:?}"
    );
}

/// Panics unless `product` has rows of logits and `bias` fits them.
#[track_caller]
pub(crate) fn logits(operation: &str, product: &[usize], bias: &[usize]) {
    not_empty(operation, "product", product);
    shape(operation, "bias", bias, &product[1..], ("product", product));
}

/// Panics unless a weight and a bias fit the last dimension.
#[track_caller]
pub(crate) fn linear(operation: &str, x: &[usize], weight: &[usize], bias: Option<&[usize]>) {
    let inputs = x.last().copied().unwrap_or(0);
    shape(operation, "weight", weight, &[inputs, weight[1]], ("x", x));
    if let Some(bias) = bias {
        shape(operation, "bias", bias, &weight[1..], ("weight", weight));
    }
}

/// Panics unless the last dimension divides into three times `heads` parts of even width.
#[track_caller]
pub(crate) fn heads(operation: &str, found: &[usize], heads: usize) {
    let triple = found.last().copied().unwrap_or(0);
    assert!(
        heads > 0 && triple.is_multiple_of(6 * heads),
        "{operation}: the last dimension of qkv must be queries, keys and values of {heads} heads of even width, found shape {found:?}"
    );
}

/// Panics unless every token lies in the vocabulary.
#[track_caller]
pub(crate) fn tokens(operation: &str, ids: &[i32], vocab: usize) {
    if let Some(id) = ids
        .iter()
        .find(|id| !usize::try_from(**id).is_ok_and(|id| id < vocab))
    {
        panic!("{operation}: ids must be below the vocabulary size {vocab}, found {id}");
    }
}
