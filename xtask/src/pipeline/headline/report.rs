//! The page: what won, tables, picture, numbers.

use super::compare::{Lead, Measure, NATS, VALID, at, lead, matched, mean};
use super::{ENTRANTS, Entrant, FLOW_MAP, Finished, Text, picture};
use crate::pipeline::report::{around, in_order};
use crate::pipeline::write;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// In how many steps the claim is made, and of how many of its rivals.
const CLAIM: (usize, usize) = (1, 8);

/// Writes the page, its picture and its numbers into a folder.
pub(crate) fn publish(
    runs: &[Finished],
    text: &Text,
    (evaluations, distillation): (u64, u64),
    folder: &Path,
    page: &str,
) -> anyhow::Result<()> {
    let place = folder.join(format!("{page}.md"));
    let before = fs::read_to_string(&place).unwrap_or_default();
    let picture_name = format!("{page}.svg");
    let told = told(runs, text, (evaluations, distillation), &picture_name)?;
    write(
        &place,
        &around(&before, "Flows beside their rivals", "headline", &told),
    )?;
    write(&folder.join(picture_name), &picture::draw(runs, text)?)?;
    let numbers = serde_json::json!({
        "evaluations": evaluations,
        "distillation": distillation,
        "text": text,
        "runs": runs,
    });
    let numbers = serde_json::to_string_pretty(&numbers)? + "\n";
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
        .filter(|run| run.entrant == FLOW_MAP)
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

fn told(
    runs: &[Finished],
    text: &Text,
    (evaluations, distillation): (u64, u64),
    picture: &str,
) -> anyhow::Result<String> {
    let mut out = String::new();
    let seeds = in_order(runs.iter().map(|run| run.seed.to_string()));
    let commits = in_order(runs.iter().filter_map(|run| run.trained.commit.clone()));
    let samples = runs
        .iter()
        .flat_map(|run| &run.figures)
        .map(|f| f.samples)
        .max();
    writeln!(
        out,
        "Every model is the same network on the same text. What is trained may spend {evaluations} evaluations of the network, what is distilled {distillation} besides those of its teacher:\n\
         a pass forward counts one, a pass back two, a derivative along a direction two; all rounds together. {} samples a cell and seed at temperature 1, so a share of 20 % of 1,000 is known to ±2.5 points\n\
         (two standard errors). Figures side by side are of the seeds {}, in this order; a seed decides weights, batches and samples. Made by commit {}.\n",
        samples.unwrap_or(0),
        seeds.join(", "),
        commits.join(", ")
    )?;
    writeln!(out, "### Who wins\n")?;
    out += &readings(runs)?;
    writeln!(
        out,
        "\n![quality against steps and against time]({picture})\n\n\
         A full dot has the entropy of the text, to 0.05 nats or more; a hollow one says less than the text does.\n"
    )?;
    let measure = measure(runs);
    if measure.name == VALID.name {
        out += &by_steps(runs, "valid, %", |run, steps| {
            Some(format!("{:.1}", (VALID.of)(at(run, steps)?)))
        })?;
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
    Ok(out)
}

/// What the tables say, in sentences.
fn readings(runs: &[Finished]) -> anyhow::Result<String> {
    let mut out = String::new();
    let measure = measure(runs);
    for steps in steps(runs) {
        let mut ranks: Vec<(&str, f64)> = entrants(runs)
            .iter()
            .filter_map(|(entrant, mine)| {
                let values: Option<Vec<f64>> = mine
                    .iter()
                    .map(|run| Some((measure.of)(at(run, steps)?)))
                    .collect();
                Some((entrant.name, mean(&values?)))
            })
            .collect();
        ranks.sort_by(|a, b| (measure.sign * b.1).total_cmp(&(measure.sign * a.1)));
        let [(first, best), (second, next), ..] = ranks[..] else {
            continue;
        };
        let plural = if steps == 1 { "" } else { "s" };
        write!(
            out,
            "- **In {steps} step{plural}** {first} is first with {best:.0$} {1} in the mean, then {second} with {next:.0$}",
            measure.digits,
            if measure.name == VALID.name {
                "% valid"
            } else {
                "nats a token"
            }
        )?;
        let (one, other) = ((first, steps), (second, steps));
        if let Some(ahead) = lead(runs, one, other, measure) {
            write!(out, ": ahead by {}", say(ahead, measure))?;
        }
        match matched(runs, one, other, NATS) {
            Some(ahead) => writeln!(out, "; at equal entropy by {}.", say(ahead, NATS))?,
            None if steps <= super::FEW => {
                writeln!(out, "; there is no entropy that both reach.")?;
            }
            None => writeln!(out, ".")?,
        }
    }
    let (few, more) = CLAIM;
    for rival in ENTRANTS
        .iter()
        .filter(|e| e.teacher.is_some() && e.name != FLOW_MAP)
    {
        let (one, other) = ((FLOW_MAP, few), (rival.name, more));
        let Some(ahead) = lead(runs, one, other, measure) else {
            continue;
        };
        let holds = match ahead.won {
            won if won == ahead.seeds => "holds",
            0 => "does not hold",
            _ => "is open",
        };
        write!(
            out,
            "- **One step of {FLOW_MAP} beats eight of {}: {holds}.** It is ahead by {}",
            rival.name,
            say(ahead, measure)
        )?;
        match matched(runs, one, other, NATS) {
            Some(ahead) => writeln!(out, "; at equal entropy by {}.", say(ahead, NATS))?,
            None => writeln!(out, "; there is no entropy that both reach.")?,
        }
    }
    Ok(out)
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

/// What models cost, and how likely they find the text.
fn training(runs: &[Finished], text: &Text) -> anyhow::Result<String> {
    let mut out = String::from(
        "| to train | steps | evaluations | with its teacher's | seconds | of all cores | validation text, nats a token |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (entrant, mine) in entrants(runs) {
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
        writeln!(out, "| *the text's own law* | | | | | | {nats:.3} |")?;
    }
    Ok(out)
}
