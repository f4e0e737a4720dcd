//! The page: what won, tables, picture, numbers.

use super::compare::{Lead, Matched, Measure, NATS, VALID, at, lead, matched, mean};
use super::figures::FEW;
use super::perfect::{Ceiling, Perfect};
use super::{ENTRANTS, Entrant, FLOW_MAP, Finished, Found, Text, picture};
use crate::pipeline::report::{around, in_order};
use crate::pipeline::write;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// In how many steps the claim is made, and of how many of its rivals.
const CLAIM: (usize, usize) = (1, 8);

/// Writes the page, its picture and its numbers into a folder.
pub(super) fn publish(found: &Found, folder: &Path, page: &str) -> anyhow::Result<()> {
    let place = folder.join(format!("{page}.md"));
    let before = fs::read_to_string(&place).unwrap_or_default();
    let picture_name = format!("{page}.svg");
    let told = render(found, &picture_name)?;
    write(
        &place,
        &around(&before, "Flows beside their rivals", "headline", &told),
    )?;
    write(&folder.join(picture_name), &picture::draw(found)?)?;
    let numbers = serde_json::to_string_pretty(found)? + "\n";
    write(&folder.join(format!("{page}.json")), &numbers)?;
    println!("{}", place.display());
    Ok(())
}

/// What the best samples are the best by.
pub(super) fn measure(runs: &[Finished]) -> Measure {
    let known = |run: &Finished| run.figures.iter().all(|figures| figures.valid.is_some());
    if runs.iter().all(known) { VALID } else { NATS }
}

/// Numbers of steps in which some model was sampled that can choose them.
pub(super) fn steps(runs: &[Finished]) -> Vec<usize> {
    let mut all: Vec<usize> = runs
        .iter()
        .filter(|run| run.entrant != "AR")
        .flat_map(|run| run.figures.iter().map(|figures| figures.steps))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Entrants with the runs that are there.
pub(super) fn entrants(runs: &[Finished]) -> Vec<(&'static Entrant, Vec<&Finished>)> {
    ENTRANTS
        .iter()
        .map(|entrant| {
            let mine = runs.iter().filter(|run| run.entrant == entrant.name);
            (entrant, mine.collect::<Vec<_>>())
        })
        .filter(|(_, mine)| !mine.is_empty())
        .collect()
}

fn render(found: &Found, picture: &str) -> anyhow::Result<String> {
    let Found {
        evaluations,
        distillation,
        text,
        perfect,
        runs,
    } = found;
    let mut out = String::new();
    let seeds = in_order(runs.iter().map(|run| run.seed.to_string()));
    let commits = in_order(runs.iter().filter_map(|run| run.trained.commit.clone()));
    let together = runs.iter().map(|run| run.trained.jobs).max().unwrap_or(1);
    let samples = runs
        .iter()
        .flat_map(|run| &run.figures)
        .map(|f| f.samples)
        .max();
    let (measure, samples) = (measure(runs), samples.unwrap_or(0));
    let known = if measure.name == VALID.name {
        let error = 100.0 * (0.2 * 0.8 / samples as f64).sqrt();
        format!(
            ", so a share of 20 % is known to ±{:.1} points (two standard errors)",
            2.0 * error
        )
    } else {
        String::new()
    };
    writeln!(
        out,
        "Every model is the same network on the same text. What is trained may spend {evaluations} evaluations of the network, what is distilled {distillation} besides those of its teacher:\n\
         a forward pass counts 1, a backward pass 2, a derivative along a direction 2; all rounds together. {samples} samples a cell and seed at temperature 1{known}.\n\
         Figures side by side are of the seeds {}, in this order; a seed decides weights, batches and samples. Made by commit {}.\n",
        seeds.join(", "),
        commits.join(", ")
    )?;
    writeln!(
        out,
        "FLM and FMLM are trained and distilled as published, by the preset `grammar-trajectory`. FLM with evidence has evidence as a second input, self-conditioning and, on the grammar, soft targets; {FLOW_MAP} is distilled from it by distribution matching, for one step: the preset `grammar-tiny`.\n\
         FMLM is sampled without fresh noise and, beside it, with γ = 0.8 as LM1B was; FLM with evidence along its flow and, beside it, by the bridge; Duo + DCD from its posterior in all steps and, beside it, with the published greedy tail. The last answer of a flow or a flow map is the likeliest token of each place, that of a diffusion is drawn.\n\
         *At equal entropy* is said up to {FEW} steps: the difference in nats a token, averaged over the entropies that both reach at temperatures from 0.5 to 1. In one step of a flow map the scale of its noise takes the place of the temperature.\n"
    )?;
    writeln!(out, "### Who wins\n")?;
    out += &readings(runs)?;
    writeln!(
        out,
        "\n![quality against steps and against time]({picture})\n\n\
         A full dot has the entropy of the text, to 0.05 nats or more; a hollow one says less than the text does.\n"
    )?;
    if measure.name == VALID.name {
        out += &by_steps(runs, "valid, %", |run, steps| {
            Some(format!("{:.1}", (VALID.of)(at(run, steps)?)))
        })?;
        if let Some(perfect) = perfect {
            out += &ceilings(perfect, &steps(runs));
        }
        writeln!(out)?;
    }
    out += &by_steps(runs, "nats a token", |run, steps| {
        Some(format!("{:.2}", at(run, steps)?.nats_per_token))
    })?;
    writeln!(
        out,
        "\nThe text itself: {:.2} nats a token ({} validation rows).\n",
        text.nats_per_token, text.rows
    )?;
    out += &by_steps(runs, "unigram entropy", |run, steps| {
        Some(format!("{:.2}", at(run, steps)?.entropy))
    })?;
    writeln!(out, "\nThe text itself: {:.2}.\n", text.entropy)?;
    out += &by_steps(runs, "distinct", |run, steps| {
        Some(format!("{:.3}", at(run, steps)?.distinct))
    })?;
    writeln!(
        out,
        "\nThe text itself: {:.3}, of {} rows.\n",
        text.distinct, text.rows
    )?;
    out += &by_steps(runs, "seconds for 1,000 samples", |run, steps| {
        let figures = at(run, steps)?;
        Some(format!(
            "{:.1}",
            figures.seconds * 1e3 / figures.samples as f64
        ))
    })?;
    writeln!(out)?;
    out += &training(runs, text)?;
    if let Some(perfect) = perfect {
        writeln!(
            out,
            "\n### What is left to learn\n\n\
             The grammar's distribution is known, so the exact denoiser can be computed, and sampled like a network: *perfect masked diffusion* fills masked tokens by exact marginals, *perfect uniform-state diffusion* draws as Duo does, from what all other tokens say of each, *perfect flow* takes Euler steps with the exact\n\
             denoiser, at the times that the trained flows take. What they miss is the price of few steps and of nothing else. A perfect flow map misses nothing in one step. *Through FLM's embedding* means that states are seen as the\n\
             trained network sees them, along as many directions as it is wide ([Evaluation](../evaluation.md#what-is-left-to-learn)).\n\n{}",
            perfect.render()
        )?;
    }
    if together > 1 {
        writeln!(
            out,
            "\nUp to {together} models were trained at a time, so seconds of training are of a shared machine."
        )?;
    }
    Ok(out)
}

/// What the tables say, in sentences.
fn readings(runs: &[Finished]) -> anyhow::Result<String> {
    let mut out = String::new();
    let measure = measure(runs);
    for steps in steps(runs) {
        let mut ranks: Vec<(&Entrant, f64)> = entrants(runs)
            .iter()
            .filter_map(|(entrant, mine)| {
                let values: Option<Vec<f64>> = mine
                    .iter()
                    .map(|run| Some((measure.of)(at(run, steps)?)))
                    .collect();
                Some((*entrant, mean(&values?)))
            })
            .collect();
        ranks.sort_by(|a, b| (measure.sign * b.1).total_cmp(&(measure.sign * a.1)));
        // The next is another model, and not the same one sampled in another way.
        let trained = |entrant: &Entrant| entrant.model.unwrap_or(entrant.name);
        let Some(&(first, best)) = ranks.first() else {
            continue;
        };
        let mut others = ranks.iter().filter(|(e, _)| trained(e) != trained(first));
        let Some(&(second, next)) = others.next() else {
            continue;
        };
        let (first, second) = (first.name, second.name);
        write!(
            out,
            "- **In {}** {first} is first with {best:.2$} {1} in the mean, then {second} with {next:.2$}",
            in_steps(steps),
            if measure.name == VALID.name {
                "% valid"
            } else {
                "nats a token"
            },
            measure.digits,
        )?;
        let (one, other) = ((first, steps), (second, steps));
        if let Some(ahead) = lead(runs, one, other, measure) {
            write!(out, ": ahead by {}", say(ahead, measure))?;
        }
        if steps <= FEW {
            write!(
                out,
                "; {}",
                at_equal_entropy(matched(runs, one, other, NATS))
            )?;
        }
        writeln!(out, ".")?;
    }
    let (few, more) = CLAIM;
    let rivals = |entrant: &&Entrant| {
        let distilled = |e: &Entrant| e.teacher.is_some() && e.family != "flow";
        let of = |name| ENTRANTS.iter().find(|e| e.name == name);
        distilled(entrant) || entrant.model.and_then(of).is_some_and(distilled)
    };
    for rival in ENTRANTS.iter().filter(rivals) {
        let (one, other) = ((FLOW_MAP, few), (rival.name, more));
        let Some(ahead) = lead(runs, one, other, measure) else {
            continue;
        };
        let equal = matched(runs, one, other, NATS);
        writeln!(
            out,
            "- **{FLOW_MAP} in {} beats {} in {}: {}.** It is ahead by {}; {}.",
            in_steps(few),
            rival.name,
            in_steps(more),
            verdict(ahead, equal),
            say(ahead, measure),
            at_equal_entropy(equal)
        )?;
    }
    Ok(out)
}

/// What is said of a claim: it takes all seeds, as sampled and at equal entropy.
fn verdict(ahead: Lead, equal: Option<Matched>) -> &'static str {
    match (ahead.won, equal.map(|matched| matched.lead)) {
        (won, Some(lead)) if won == ahead.seeds && lead.won == lead.seeds => "holds",
        (0, Some(lead)) if lead.won == 0 => "does not hold",
        (0, None) => "does not hold, as they are sampled",
        _ => "is open",
    }
}

fn in_steps(steps: usize) -> String {
    let plural = if steps == 1 { "" } else { "s" };
    format!("{steps} step{plural}")
}

fn at_equal_entropy(matched: Option<Matched>) -> String {
    let Some(Matched { lead, of, range }) = matched else {
        return "there is no entropy that both reach".to_owned();
    };
    let seeds = if lead.seeds == of {
        String::new()
    } else {
        format!(
            ", the only {} of {of} with an entropy that both reach",
            lead.seeds
        )
    };
    format!(
        "at equal entropy ({:.2} to {:.2}) by {}{seeds}",
        range.0,
        range.1,
        say(lead, NATS)
    )
}

fn say(lead: Lead, measure: Measure) -> String {
    format!(
        "{:+.*} {} ({} of {} seeds)",
        measure.digits, lead.mean, measure.unit, lead.won, lead.seeds
    )
}

/// A table of one figure, seed by seed.
fn by_steps(
    runs: &[Finished],
    title: &str,
    cell: impl Fn(&Finished, usize) -> Option<String>,
) -> anyhow::Result<String> {
    let steps = steps(runs);
    let head: Vec<String> = steps.iter().map(usize::to_string).collect();
    let mut out = format!(
        "| {title} | {} |\n| --- |{}\n",
        head.join(" | "),
        " --- |".repeat(steps.len())
    );
    for (entrant, mine) in entrants(runs) {
        let cells: Vec<String> = steps
            .iter()
            .map(|&steps| {
                let all: Option<Vec<String>> = mine.iter().map(|run| cell(run, steps)).collect();
                all.map_or_else(|| "–".to_owned(), |all| all.join(" · "))
            })
            .collect();
        let all_there = cells.iter().any(|cell| cell != "–");
        if all_there {
            writeln!(out, "| {} | {} |", entrant.name, cells.join(" | "))?;
            continue;
        }
        // A model that takes its own number of steps.
        let own = mine[0].figures[0].steps;
        let all: Vec<String> = mine.iter().filter_map(|run| cell(run, own)).collect();
        writeln!(
            out,
            "| {} | in {own}: {} |{}",
            entrant.name,
            all.join(" · "),
            " |".repeat(steps.len() - 1)
        )?;
    }
    Ok(out)
}

/// Rows of perfect models.
fn ceilings(perfect: &Perfect, steps: &[usize]) -> String {
    let row = |line: Ceiling| {
        let cells = steps.iter().map(|steps| {
            let found = line.points.iter().find(|(other, _)| other == steps);
            found.map_or_else(
                || "–".to_owned(),
                |(_, valid)| {
                    let all = valid.iter().map(|valid| format!("{valid:.1}"));
                    all.collect::<Vec<_>>().join(" · ")
                },
            )
        });
        let cells: Vec<String> = cells.collect();
        format!("| *{}* | {} |\n", line.name, cells.join(" | "))
    };
    perfect.ceilings().into_iter().map(row).collect()
}

/// What models cost, and how likely they find the text.
fn training(runs: &[Finished], text: &Text) -> anyhow::Result<String> {
    let mut out = String::from(
        "| to train | steps | evaluations | with its teacher's | seconds | of all cores | validation text, nats a token |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (entrant, mine) in entrants(runs) {
        if entrant.model.is_some() {
            continue;
        }
        let all = |figure: &dyn Fn(&Finished) -> Option<String>| {
            let figures = mine
                .iter()
                .map(|run| figure(run).unwrap_or_else(|| "?".to_owned()));
            figures.collect::<Vec<_>>().join(" · ")
        };
        let teacher = entrant
            .teacher
            .and_then(|teacher| runs.iter().find(|run| run.entrant == teacher))
            .map_or(0, |run| run.trained.evaluations);
        let exact = if entrant.name == "AR" { "" } else { "≤ " };
        let likelihood = match mine[0].likelihood {
            Some(_) => all(&|run| Some(format!("{exact}{:.3}", run.likelihood?))),
            None => "–".to_owned(),
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {likelihood} |",
            entrant.name,
            mine[0].trained.steps,
            mine[0].trained.evaluations,
            mine[0].trained.evaluations + teacher,
            all(&|run| Some(format!("{:.0}", run.trained.seconds))),
            all(&|run| Some(format!("{:.0}", run.trained.used.cpu_seconds?))),
        )?;
    }
    if let Some(nats) = text.likelihood {
        writeln!(
            out,
            "| *the text's own distribution* | | | | | | {nats:.3} |"
        )?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::made_up;
    use super::super::perfect::tests::made_up as perfect;
    use super::*;

    fn text() -> Text {
        Text {
            rows: 10,
            nats_per_token: 0.9,
            likelihood: Some(0.88),
            entropy: 2.3,
            distinct: 0.9,
        }
    }

    #[test]
    fn a_claim_takes_all_seeds_as_sampled_and_at_equal_entropy() {
        let page = |rival: [(f64, f64); 2]| {
            let runs: Vec<Finished> = (0..2)
                .flat_map(|seed| {
                    let (valid, entropy) = rival[seed as usize];
                    [
                        made_up(FLOW_MAP, seed, &[(1, 0.3, 2.2), (8, 0.5, 2.2)]),
                        made_up("FMLM, γ = 0.8", seed, &[(1, 0.2, 2.2), (8, 0.4, 2.2)]),
                        made_up("MDLM + SDTT", seed, &[(1, 0.0, 2.2), (8, valid, entropy)]),
                        made_up("AR", seed, &[(22, 0.9, 2.3)]),
                    ]
                })
                .collect();
            let found = Found {
                evaluations: 100,
                distillation: 200,
                text: text(),
                perfect: Some(perfect()),
                runs,
            };
            render(&found, "p.svg").unwrap()
        };
        let claim = "**FMLM by matching in 1 step beats MDLM + SDTT in 8 steps: ";
        let won = page([(0.2, 2.2), (0.1, 2.2)]);
        assert!(
            won.contains(&format!(
                "{claim}holds.** It is ahead by +15.0 points (2 of 2 seeds)"
            )),
            "{won}"
        );
        let lost = page([(0.4, 2.2), (0.6, 2.2)]);
        assert!(lost.contains(&format!("{claim}does not hold.**")), "{lost}");
        // What says less than the other ever does is not compared.
        let apart = page([(0.4, 1.2), (0.6, 1.2)]);
        assert!(
            apart.contains(&format!("{claim}does not hold, as they are sampled.**")),
            "{apart}"
        );
        assert!(
            apart.contains("there is no entropy that both reach"),
            "{apart}"
        );
        let mixed = page([(0.2, 2.2), (0.6, 2.2)]);
        assert!(mixed.contains(&format!("{claim}is open.**")), "{mixed}");
        // The autoregressive model has its own number of steps.
        assert!(won.contains("| AR | in 22: 90.0 · 90.0 | |"), "{won}");
        assert!(
            won.contains("| *perfect masked diffusion* | 12.5 | 12.5 |"),
            "{won}"
        );
        let uniform = "| *perfect uniform-state diffusion* | 25.0 | 25.0 |";
        assert!(won.contains(uniform), "{won}");
        let through = "| *perfect flow through FLM's embedding* | 75.0 · 75.0 | – |";
        assert!(won.contains(through), "{won}");
        assert!(won.contains("### What is left to learn"), "{won}");
        assert!(
            won.contains("- **In 1 step** FMLM by matching is first with 30.0 % valid in the mean, then FMLM, γ = 0.8 with 20.0"),
            "{won}"
        );
        assert!(
            won.contains("- **In 8 steps** FMLM by matching is first with 50.0 % valid"),
            "{won}"
        );
    }
}
