//! What the book shows of the code is the code.

/// Lines of Rust without imports and comments.
fn bare(code: &str) -> Vec<&str> {
    code.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("use "))
        .collect()
}

#[test]
fn the_objective_shown_to_contributors_is_the_one_that_is_there() {
    let page = include_str!("../../docs/contributing.md");
    let file = include_str!("../../crates/flm-distill/src/off_diagonal/consistency.rs");
    let shown = page
        .split("```rust\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a block of Rust");
    assert_eq!(bare(shown), bare(file));
}
