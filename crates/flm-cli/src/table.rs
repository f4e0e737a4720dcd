//! Tables in text.

use crate::stages::eval::Figures;

/// The figures of several sets of samples, one a line.
pub(crate) fn figures(rows: &[(String, Figures)]) -> String {
    let is_grammar = rows
        .iter()
        .any(|(_, figures)| matches!(figures, Figures::Grammar(_)));
    let mut header = vec!["samples", "count"];
    if is_grammar {
        header.extend(["valid", "nats/tok"]);
    }
    header.extend(["entropy", "distinct", "length"]);
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for (name, figures) in rows {
        lines.push(match figures {
            Figures::Grammar(q) => vec![
                name.clone(),
                q.samples.to_string(),
                format!("{:.3}", q.valid),
                format!("{:.2}", q.oracle_nats_per_token),
                format!("{:.2}", q.entropy),
                format!("{:.3}", q.distinct),
                format!("{:.1}", q.mean_length),
            ],
            Figures::Open(d) => vec![
                name.clone(),
                d.samples.to_string(),
                format!("{:.2}", d.entropy),
                format!("{:.3}", d.distinct),
                format!("{:.1}", d.mean_length),
            ],
        });
    }
    aligned(&lines)
}

/// Columns under one another: the first to the left, the others to the right.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                if column == 0 {
                    format!("{cell:width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_one_another() {
        let cells = |line: [&str; 2]| line.map(str::to_owned).to_vec();
        assert_eq!(
            aligned(&[cells(["name", "x"]), cells(["ä", "1.25"])]),
            "name     x\nä     1.25\n"
        );
    }
}
