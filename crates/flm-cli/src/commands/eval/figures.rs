//! The table of the figures of several sets of samples.

use crate::table::{aligned, optional};
use flm_study::{Evaluation, Figures};

/// Formats the figures of several sets of samples, one set per line.
///
/// Columns that no set has are left out. A grammar adds the share of valid samples, oracle nats per
/// token, and divergence and recall of sentence frames; each scorer adds a perplexity.
pub(super) fn figures(rows: &[Evaluation]) -> String {
    let is_grammar = rows
        .iter()
        .any(|row| matches!(row.figures, Figures::Grammar(_)));
    let scorers = rows.iter().map(|row| row.scores.len()).max().unwrap_or(0);
    let has_tokens = !is_grammar && rows.iter().any(|row| row.token_entropy.is_some());
    let mut header = vec!["samples", "count"];
    if is_grammar {
        header.extend(["valid", "nats/tok", "frames", "recall"]);
    }
    header.extend(vec!["perplexity"; scorers]);
    let compared = rows.iter().map(|row| row.mauve.len()).max().unwrap_or(0);
    header.extend(vec!["MAUVE"; compared]);
    header.push("entropy");
    if has_tokens {
        header.push("of tokens");
    }
    header.extend(["distinct", "pairs", "self-BLEU", "repeated", "length"]);
    let has_copied = rows.iter().any(|row| row.copied.is_some());
    if has_copied {
        header.push("copied");
    }
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let distribution = match &row.figures {
            Figures::Grammar(quality) => Some(quality),
            Figures::Open(_) => None,
        };
        let open = row.figures.open();
        let mut line = vec![row.name.clone(), open.samples.to_string()];
        if let Some(quality) = distribution {
            line.extend([
                format!("{:.3}", quality.valid),
                format!("{:.2}", quality.oracle_nats_per_token),
                optional(quality.frame_divergence, 3),
                optional(quality.frame_recall, 2),
            ]);
        }
        line.extend((row.scores.iter()).map(|score| format!("{:.1}", score.perplexity)));
        line.extend((row.mauve.iter()).map(|found| {
            let mauve = found.mauve;
            format!("{:.3} ± {:.3}", mauve.value, mauve.std_err)
        }));
        line.push(format!("{:.2}", open.entropy));
        if has_tokens {
            line.push(optional(row.token_entropy, 2));
        }
        line.extend([
            format!("{:.3}", open.distinct),
            optional(open.variety.distinct_2, 3),
            optional(open.variety.self_bleu, 3),
            optional(open.variety.repetition_2, 3),
            format!("{:.1}", open.mean_length),
        ]);
        if has_copied {
            line.push(optional(row.copied, 1));
        }
        lines.push(line);
    }
    let mut out = aligned(&lines);
    for number in 0..scorers {
        let mut names: Vec<&str> = (rows.iter())
            .filter_map(|row| Some(row.scores.get(number)?.scorer.as_str()))
            .collect();
        names.dedup();
        out += &format!("scorer {}  {}\n", number + 1, names.join(", "));
    }
    out
}
