//! The page of a study: its command writes tables, a picture and the numbers; people write the sentences around them.

use super::compare::{Finished, Lead, Matched, Measure, NATS, VALID, at, lead, matched, mean};
use super::perfect::{Ceiling, Perfect};
use super::picture;
use super::runner::{read, write_json};
use super::study::{Claim, FEW, Found, Model, Table, Text};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Writes the tables into `PAGE.md`, and `PAGE.svg` and `PAGE.json` next to it.
pub(crate) fn publish(
    table: &Table,
    found: &Found,
    folder: &Path,
    page: &str,
) -> anyhow::Result<()> {
    let place = folder.join(format!("{page}.md"));
    let before = fs::read_to_string(&place).unwrap_or_default();
    let drawing = format!("{page}.svg");
    let figures = render(table, found, &drawing)?;
    let text = around(&before, table.title, table.pipeline, &figures);
    flm_files::write(&place, text.as_bytes())?;
    flm_files::write(
        &folder.join(drawing),
        picture::draw(table, found)?.as_bytes(),
    )?;
    write_json(&folder.join(format!("{page}.json")), found)?;
    println!("{}", place.display());
    Ok(())
}

/// Renders a page again from its numbers.
pub(crate) fn again(table: &Table, numbers: &Path) -> anyhow::Result<()> {
    let folder = numbers.parent().unwrap_or(Path::new("."));
    let page = numbers.file_stem().unwrap_or_default().to_string_lossy();
    publish(table, &read(numbers)?, folder, &page)
}

/// The end of a page's figures.
const END: &str = "<!-- end of the figures -->";

/// The start of a page's figures.
fn begin(pipeline: &str) -> String {
    format!("<!-- figures: written by cargo xtask pipeline {pipeline} -->")
}

/// Replaces the figures of a page, or appends them; the text around them stays. An empty page becomes a new one.
pub(crate) fn around(page: &str, title: &str, pipeline: &str, figures: &str) -> String {
    let begin = begin(pipeline);
    let figures = format!("{begin}\n\n{figures}\n{END}");
    match (page.split_once(begin.as_str()), page.split_once(END)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{figures}{after}"),
        _ if page.trim().is_empty() => format!("# {title}\n\n{figures}\n"),
        _ => format!("{}\n\n{figures}\n", page.trim_end()),
    }
}

/// A mean, and the standard deviation where there are several seeds.
pub(crate) fn cell(values: &[f64], digits: usize) -> String {
    let middle = mean(values);
    if values.len() < 2 {
        return format!("{middle:.digits$}");
    }
    let squares = values.iter().map(|value| (value - middle).powi(2));
    let deviation = (squares.sum::<f64>() / (values.len() - 1) as f64).sqrt();
    format!("{middle:.digits$} ±{deviation:.digits$}")
}

/// Each word once, in its order.
fn unique(words: impl Iterator<Item = String>) -> String {
    let mut seen = Vec::new();
    for word in words {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen.join(", ")
}

/// Validity where it is known, nats per token otherwise.
pub(super) fn measure(runs: &[Finished]) -> Measure {
    let known = |run: &Finished| run.figures.iter().all(|figures| figures.valid.is_some());
    if runs.iter().all(known) { VALID } else { NATS }
}

/// Models with their runs.
pub(super) fn models<'a>(
    table: &'a Table,
    runs: &'a [Finished],
) -> Vec<(&'a Model, Vec<&'a Finished>)> {
    let mine = |model: &'a Model| {
        let mine = runs.iter().filter(|run| run.model == model.name);
        (model, mine.collect::<Vec<_>>())
    };
    let all = table.models.iter().map(mine);
    all.filter(|(_, mine)| !mine.is_empty()).collect()
}

/// Numbers of steps in which models were sampled, but for those that take a step per token.
pub(super) fn steps(table: &Table, runs: &[Finished]) -> Vec<usize> {
    let models = models(table, runs);
    let free = models.iter().filter(|(model, _)| !model.autoregressive);
    let figures = free.flat_map(|(_, runs)| runs.iter().flat_map(|run| &run.figures));
    let mut all: Vec<usize> = figures.map(|figures| figures.steps).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn render(table: &Table, found: &Found, picture: &str) -> anyhow::Result<String> {
    let Found {
        text,
        perfect,
        runs,
    } = found;
    let measure = measure(runs);
    let mut out = facts(runs)?;
    writeln!(out, "\n![quality against steps and time]({picture})\n")?;
    let title = if measure.name == VALID.name {
        "valid, %"
    } else {
        NATS.name
    };
    out += &by_steps(
        table,
        runs,
        title,
        |run, steps| Some((measure.of)(at(run, steps)?)),
        measure.digits,
    )?;
    if let Some(perfect) = perfect {
        out += &ceilings(perfect, &steps(table, runs));
    } else if measure.name == NATS.name {
        let nats = format!("{:.2}", text.nats_per_token);
        out += &aside("validation text", &nats, steps(table, runs).len());
    }
    writeln!(out)?;
    out += &by_steps(
        table,
        runs,
        "unigram entropy",
        |run, steps| Some(at(run, steps)?.entropy),
        2,
    )?;
    let columns = steps(table, runs).len();
    out += &aside("validation text", &format!("{:.2}", text.entropy), columns);
    out.push('\n');
    out += &by_steps(
        table,
        runs,
        "distinct, %",
        |run, steps| Some(100.0 * at(run, steps)?.distinct),
        1,
    )?;
    let label = format!("{} validation rows", text.rows);
    out += &aside(&label, &format!("{:.1}", 100.0 * text.distinct), columns);
    out.push('\n');
    out += &leads(table, runs, measure)?;
    out += &training(table, runs, text)?;
    if let Some(perfect) = perfect {
        write!(out, "\n{}", perfect.render())?;
    }
    Ok(out)
}

/// What all figures have in common.
fn facts(runs: &[Finished]) -> anyhow::Result<String> {
    let seeds = unique(runs.iter().map(|run| run.seed.to_string()));
    let commits = unique(runs.iter().filter_map(|run| run.trained.commit.clone()));
    let samples = runs.iter().flat_map(|run| &run.figures).map(|f| f.samples);
    let jobs = runs.iter().map(|run| run.trained.jobs).max().unwrap_or(1);
    let mut out = String::from(
        "| seeds | samples per figure | trainings at a time | commits |\n| --- | --- | --- | --- |\n",
    );
    writeln!(
        out,
        "| {seeds} | {} | {jobs} | {commits} |",
        samples.max().unwrap_or(0)
    )?;
    Ok(out)
}

/// A table of one figure.
fn by_steps(
    table: &Table,
    runs: &[Finished],
    title: &str,
    figure: impl Fn(&Finished, usize) -> Option<f64>,
    digits: usize,
) -> anyhow::Result<String> {
    let steps = steps(table, runs);
    let head: Vec<String> = steps.iter().map(usize::to_string).collect();
    let mut out = format!(
        "| {title} | {} |\n| --- |{}\n",
        head.join(" | "),
        " --- |".repeat(steps.len())
    );
    for (model, mine) in models(table, runs) {
        let at_steps = |steps: usize| -> Option<String> {
            let all = mine.iter().map(|run| figure(run, steps));
            Some(cell(&all.collect::<Option<Vec<_>>>()?, digits))
        };
        if model.autoregressive {
            let own = mine[0].figures[0].steps;
            let all = at_steps(own).unwrap_or_default();
            out += &aside(&format!("{} in {own} steps", model.name), &all, steps.len());
            continue;
        }
        let cells = steps
            .iter()
            .map(|&steps| at_steps(steps).unwrap_or_else(|| "–".to_owned()));
        writeln!(
            out,
            "| {} | {} |",
            model.name,
            cells.collect::<Vec<_>>().join(" | ")
        )?;
    }
    Ok(out)
}

/// A row of a figure that belongs to no number of steps.
fn aside(label: &str, value: &str, columns: usize) -> String {
    format!("| *{label}: {value}* |{}\n", " – |".repeat(columns))
}

/// Rows of exact denoisers.
fn ceilings(perfect: &Perfect, steps: &[usize]) -> String {
    let row = |line: Ceiling| {
        let cells = steps.iter().map(|steps| {
            let found = line.points.iter().find(|(other, _)| other == steps);
            found.map_or_else(|| "–".to_owned(), |(_, valid)| cell(valid, 1))
        });
        format!(
            "| *{}* | {} |\n",
            line.name,
            cells.collect::<Vec<_>>().join(" | ")
        )
    };
    perfect.ceilings().into_iter().map(row).collect()
}

/// The best model at each number of steps beside the next one, and the claims of the study.
fn leads(table: &Table, runs: &[Finished], measure: Measure) -> anyhow::Result<String> {
    let mut rows = String::new();
    for claim in steps(table, runs)
        .into_iter()
        .filter_map(|steps| best(table, runs, steps, measure))
    {
        rows += &compared(runs, claim, measure)?;
    }
    for claim in &table.claims {
        rows += &compared(runs, *claim, measure)?;
    }
    if rows.is_empty() {
        return Ok(rows);
    }
    let unit = measure.unit;
    Ok(format!(
        "| model | compared with | lead, {unit} | seeds won | lead at equal entropy, nats | seeds won |\n\
         | --- | --- | --- | --- | --- | --- |\n{rows}\n"
    ))
}

/// The best model in a number of steps, and the next one that is another training.
fn best(table: &Table, runs: &[Finished], steps: usize, measure: Measure) -> Option<Claim> {
    let mut ranks: Vec<(&Model, f64)> = models(table, runs)
        .into_iter()
        .filter_map(|(model, mine)| {
            let values = mine.iter().map(|run| Some((measure.of)(at(run, steps)?)));
            Some((model, mean(&values.collect::<Option<Vec<_>>>()?)))
        })
        .collect();
    ranks.sort_by(|a, b| (measure.sign * b.1).total_cmp(&(measure.sign * a.1)));
    let trained = |model: &Model| model.samples_of.unwrap_or(model.name);
    let (first, _) = *ranks.first()?;
    let (second, _) = ranks
        .iter()
        .find(|(model, _)| trained(model) != trained(first))?;
    Some(((first.name, steps), (second.name, steps)))
}

/// A row of two models; none where they share no seed.
fn compared(runs: &[Finished], (one, other): Claim, measure: Measure) -> anyhow::Result<String> {
    let Some(ahead) = lead(runs, one, other, measure) else {
        return Ok(String::new());
    };
    let in_steps = |(name, steps): (&str, usize)| {
        format!(
            "{name} in {steps} step{}",
            if steps == 1 { "" } else { "s" }
        )
    };
    let won = |lead: Lead| format!("{} of {}", lead.won, lead.seeds);
    let equal = match matched(runs, one, other, NATS).filter(|_| one.1 <= FEW && other.1 <= FEW) {
        Some(Matched { lead, range, .. }) => format!(
            "{:+.2} ({:.2} to {:.2}) | {}",
            lead.mean,
            range.0,
            range.1,
            won(lead)
        ),
        None => "– | –".to_owned(),
    };
    let mut out = String::new();
    writeln!(
        out,
        "| {} | {} | {:+.*} | {} | {equal} |",
        in_steps(one),
        in_steps(other),
        measure.digits,
        ahead.mean,
        won(ahead)
    )?;
    Ok(out)
}

/// The cost of every training, and the likelihood of the text.
fn training(table: &Table, runs: &[Finished], text: &Text) -> anyhow::Result<String> {
    let mut out = String::from(
        "| training | steps | evaluations | with its teacher's | seconds | CPU seconds | peak memory, MiB | validation text, nats per token |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (model, mine) in models(table, runs) {
        if model.samples_of.is_some() {
            continue;
        }
        let all = |figure: &dyn Fn(&Finished) -> Option<f64>, digits| {
            let all: Option<Vec<f64>> = mine.iter().map(|run| figure(run)).collect();
            all.map_or_else(|| "–".to_owned(), |all| cell(&all, digits))
        };
        let teacher = model
            .teacher
            .and_then(|name| runs.iter().find(|run| run.model == name));
        let cost = &mine[0].trained;
        let bound = if model.autoregressive { "" } else { "≤ " };
        let likelihood = match mine[0].likelihood {
            Some(_) => format!("{bound}{}", all(&|run| run.likelihood, 3)),
            None => "–".to_owned(),
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {likelihood} |",
            model.name,
            cost.steps,
            cost.evaluations,
            cost.evaluations + teacher.map_or(0, |run| run.trained.evaluations),
            all(&|run| Some(run.trained.seconds), 0),
            all(&|run| run.trained.used.cpu_seconds, 0),
            all(&|run| run.trained.used.peak_mib, 0),
        )?;
    }
    if let Some(nats) = text.likelihood {
        writeln!(out, "| *exact distribution* | | | | | | | {nats:.3} |")?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::made_up;
    use super::super::headline;
    use super::super::perfect::tests::made_up as perfect;
    use super::*;

    #[test]
    fn the_text_around_the_figures_stays() {
        let around = |page: &str, figures: &str| around(page, "Ways", "distillations", figures);
        let first = around("", "1");
        assert!(first.starts_with("# Ways\n"));
        let edited = first.replace("# Ways", "Before.\n# Ways") + "After.\n";
        let second = around(&edited, "2");
        assert_eq!(second, edited.replace("\n1\n", "\n2\n"));
        let cut = format!("Text.\n{}\n", begin("distillations"));
        for page in ["Only text.\n", cut.as_str()] {
            let with = around(page, "3");
            assert!(with.starts_with(page.trim_end()) && with.ends_with(&format!("3\n{END}\n")));
        }
    }

    #[test]
    fn a_cell_has_the_standard_deviation_of_its_seeds() {
        assert_eq!(cell(&[1.0, 2.0, 3.0], 1), "2.0 ±1.0");
        assert_eq!(cell(&[4.26], 1), "4.3");
    }

    #[test]
    fn a_page_has_the_best_at_each_number_of_steps_and_the_claims() {
        let text = Text {
            rows: 10,
            nats_per_token: 0.9,
            likelihood: Some(0.88),
            entropy: 2.3,
            distinct: 0.9,
        };
        let mut runs = Vec::new();
        for (seed, valid) in [(0, 0.2), (1, 0.6)] {
            runs.extend([
                made_up("FMLM, γ = 0.8", seed, &[(1, 0.2, 2.2), (8, 0.4, 2.2)]),
                made_up("FMLM by matching", seed, &[(1, 0.3, 2.2), (8, 0.5, 2.2)]),
                made_up("MDLM + SDTT", seed, &[(1, 0.0, 2.2), (8, valid, 2.2)]),
                made_up("AR", seed, &[(22, 0.9, 2.3)]),
            ]);
        }
        let perfect = Some(perfect());
        let found = Found {
            text,
            perfect,
            runs,
        };
        let page = render(&headline::table(), &found, "p.svg").unwrap();
        for row in [
            "| FMLM by matching | 30.0 ±0.0 | 50.0 ±0.0 |",
            "| *AR in 22 steps: 90.0 ±0.0* | – | – |",
            "| *exact masked diffusion* | 12.5 | 12.5 |",
            "| *exact flow through FLM's embedding* | 75.0 ±0.0 | – |",
            "| FMLM by matching in 1 step | FMLM, γ = 0.8 in 1 step | +10.0 | 2 of 2 |",
            "| FMLM by matching in 8 steps | FMLM, γ = 0.8 in 8 steps | +10.0 | 2 of 2 |",
            "| FMLM by matching in 1 step | MDLM + SDTT in 8 steps | -10.0 | 1 of 2 |",
        ] {
            assert!(page.contains(row), "no {row} in\n{page}");
        }
    }
}
