//! Code shown in the documentation matches the source.

/// Returns the lines of Rust code without imports and comments.
fn bare(code: &str) -> Vec<&str> {
    code.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("use "))
        .collect()
}

#[test]
fn the_objective_of_the_guide_is_the_one_in_the_source() {
    let page = include_str!("../../docs/guides/objectives.md");
    let file = include_str!("../../crates/flm-distill/src/off_diagonal/consistency.rs");
    let shown = page
        .split("```rust,ignore\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a block of Rust");
    let (shown, file) = (bare(shown), bare(file));
    assert!(
        file.windows(shown.len()).any(|lines| lines == shown),
        "the page shows other code than {file:#?}"
    );
}
