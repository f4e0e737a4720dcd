//! The page of the study: tables, picture, numbers.

use super::distillations::{Figures, Finished, STEPS, VARIANTS, Variant};
use super::{picture, write};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What all others are measured by.
const RULE: &str = "semigroup";

/// Writes `distillations.md`, `.svg` and `.json` into a folder.
pub(crate) fn publish(
    runs: &[Finished],
    teacher: &Finished,
    budget: u64,
    folder: &Path,
) -> anyhow::Result<()> {
    let page = folder.join("distillations.md");
    let before = fs::read_to_string(&page).unwrap_or_default();
    let figures = figures(runs, teacher, budget)?;
    let pipeline = "distillations";
    write(
        &page,
        &around(&before, "Ways to a flow map", pipeline, &figures),
    )?;
    let drawing = picture::validity(runs, teacher)?;
    write(&folder.join("distillations.svg"), &drawing)?;
    let numbers = serde_json::json!({ "budget": budget, "teacher": teacher, "runs": runs });
    let numbers = serde_json::to_string_pretty(&numbers)? + "\n";
    write(&folder.join("distillations.json"), &numbers)?;
    println!("{}", page.display());
    Ok(())
}

/// Behind the figures of a page.
const END: &str = "<!-- end of the figures -->";

/// In front of the figures of a page.
fn begin(pipeline: &str) -> String {
    format!("<!-- figures: written by cargo xtask pipeline {pipeline} -->")
}

/// A page with a pipeline's figures in the place of the earlier ones, at its end, or a new page. What stands around them is kept.
pub(crate) fn around(page: &str, title: &str, pipeline: &str, figures: &str) -> String {
    let begin = begin(pipeline);
    let figures = format!("{begin}\n\n{figures}\n{END}");
    match (page.split_once(begin.as_str()), page.split_once(END)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{figures}{after}"),
        _ if page.trim().is_empty() => format!("# {title}\n\n{figures}\n"),
        _ => format!("{}\n\n{figures}\n", page.trim_end()),
    }
}

fn figures(runs: &[Finished], teacher: &Finished, budget: u64) -> anyhow::Result<String> {
    let mut out = String::new();
    let samples = runs
        .iter()
        .flat_map(|run| &run.figures)
        .map(|figures| figures.samples)
        .max()
        .unwrap_or(0);
    let seeds = in_order(runs.iter().map(|run| run.seed.to_string()));
    let commits = in_order(runs.iter().filter_map(|run| run.commit.clone()));
    writeln!(
        out,
        "One teacher ({} steps, {} evaluations of the network, {:.0} s), then every distillation from it for {budget} evaluations: a forward pass counts 1, a backward pass 2,\n\
         a derivative along a direction two. Those *alone* start from nothing, at the teacher's learning rates, and have the teacher's evaluations besides; the second stage of the\n\
         residual recipe learns from the first, whose evaluations come besides. The first samples by two networks, so a step of it takes two evaluations.\n\
         {samples} samples a cell and seed, all from the same noise, so a share of 20 % of 1,000 is known to ±2.5 points (two standard errors) and differences to less. Figures side by side are of the seeds {}, in this order,\n\
         as far as they are finished. Made by commit {}.\n",
        teacher.steps,
        teacher.evaluations,
        teacher.seconds,
        seeds.join(", "),
        commits.join(", ")
    )?;
    writeln!(out, "![validity against steps](distillations.svg)\n")?;
    out += &validity(runs, teacher)?;
    for steps in [1, 4] {
        writeln!(out)?;
        out += &quality(runs, steps)?;
    }
    writeln!(out)?;
    out += &cost(runs)?;
    Ok(out)
}

/// Each word once, as they come.
pub(crate) fn in_order(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for word in words {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen
}

/// Variants with the runs that are there.
fn variants(runs: &[Finished]) -> impl Iterator<Item = (&'static Variant, Vec<&Finished>)> {
    VARIANTS
        .iter()
        .map(|variant| {
            let mine = runs.iter().filter(|run| run.variant == variant.name);
            (variant, mine.collect::<Vec<_>>())
        })
        .filter(|(_, runs)| !runs.is_empty())
}

fn validity(runs: &[Finished], teacher: &Finished) -> anyhow::Result<String> {
    let mut out = String::from(
        "| valid, % | 1 step | 2 | 4 | 8 | ahead of semigroup in 1 step | in 4 |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (variant, mine) in variants(runs) {
        let cells = STEPS.map(|steps| side_by_side(&mine, steps, |f| 100.0 * f.valid, 1));
        let ahead = |steps| {
            if variant.name == RULE {
                "–".to_owned()
            } else {
                ahead(runs, &mine, steps)
            }
        };
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            variant.name,
            cells.join(" | "),
            ahead(1),
            ahead(4)
        )?;
    }
    let flow = STEPS.map(|steps| side_by_side(&[teacher], steps, |f| 100.0 * f.valid, 1));
    writeln!(out, "| *the teacher* | {} | | |", flow.join(" | "))?;
    let more = teacher.figures.iter().filter(|f| f.steps > 8);
    let more: Vec<String> = more
        .map(|f| format!("{:.1} % in {} steps", 100.0 * f.valid, f.steps))
        .collect();
    if !more.is_empty() {
        writeln!(out, "\nThe teacher reaches {}.", more.join(", "))?;
    }
    Ok(out)
}

/// Points of validity more than the semigroup of the same seed, on average, and on how many seeds.
fn ahead(runs: &[Finished], mine: &[&Finished], steps: usize) -> String {
    let differences: Vec<f64> = mine
        .iter()
        .filter_map(|run| {
            let rule = runs
                .iter()
                .find(|other| other.variant == RULE && other.seed == run.seed)?;
            Some(100.0 * (at(run, steps)?.valid - at(rule, steps)?.valid))
        })
        .collect();
    if differences.is_empty() {
        return "–".to_owned();
    }
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let won = differences.iter().filter(|difference| **difference > 0.0);
    format!("{mean:+.1} ({} of {})", won.count(), differences.len())
}

fn quality(runs: &[Finished], steps: usize) -> anyhow::Result<String> {
    let plural = if steps == 1 { "" } else { "s" };
    let mut out = format!(
        "| in {steps} step{plural} | nats/token | unigram entropy | distinct |\n| --- | --- | --- | --- |\n"
    );
    for (variant, mine) in variants(runs) {
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            variant.name,
            side_by_side(&mine, steps, |f| f.oracle_nats_per_token, 2),
            side_by_side(&mine, steps, |f| f.entropy, 2),
            side_by_side(&mine, steps, |f| f.distinct, 3)
        )?;
    }
    Ok(out)
}

fn cost(runs: &[Finished]) -> anyhow::Result<String> {
    let mut out = String::from(
        "| to train | steps | evaluations a step | seconds | of all cores | peak memory, MiB |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (variant, mine) in variants(runs) {
        let each = |figure: &dyn Fn(&Finished) -> Option<f64>| {
            let figures = mine.iter().map(|run| {
                figure(run).map_or_else(|| "?".to_owned(), |figure| format!("{figure:.0}"))
            });
            figures.collect::<Vec<_>>().join(" · ")
        };
        let run = mine[0];
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            variant.name,
            run.steps,
            run.evaluations / run.steps.max(1),
            each(&|run| Some(run.seconds)),
            each(&|run| run.used.cpu_seconds),
            each(&|run| run.used.peak_mib)
        )?;
    }
    Ok(out)
}

fn at(run: &Finished, steps: usize) -> Option<&Figures> {
    run.figures.iter().find(|figures| figures.steps == steps)
}

/// A figure of each seed.
fn side_by_side(
    runs: &[&Finished],
    steps: usize,
    figure: impl Fn(&Figures) -> f64,
    digits: usize,
) -> String {
    let figures = runs.iter().map(|run| match at(run, steps) {
        Some(figures) => format!("{:.digits$}", figure(figures)),
        None => "?".to_owned(),
    });
    figures.collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_the_figures_is_kept() {
        let around = |page: &str, figures: &str| around(page, "Ways", "distillations", figures);
        let first = around("", "1");
        assert!(first.starts_with("# Ways\n"));
        let told = first.replace("# Ways", "Told before.\n# Ways") + "Told after.\n";
        let second = around(&told, "2");
        assert_eq!(second, told.replace("\n1\n", "\n2\n"));
        let cut = format!("Told.\n{}\n", begin("distillations"));
        for page in ["Only told.\n", cut.as_str()] {
            let with = around(page, "3");
            assert!(with.starts_with(page.trim_end()) && with.ends_with(&format!("3\n{END}\n")));
        }
    }

    #[test]
    fn a_variant_is_compared_with_the_semigroup_of_its_own_seed() {
        let run = |variant: &str, seed, valid| Finished {
            variant: variant.to_owned(),
            seed,
            steps: 1,
            evaluations: 1,
            seconds: 1.0,
            used: super::super::flm::Used::default(),
            command: String::new(),
            commit: None,
            figures: vec![Figures {
                steps: 1,
                samples: 1,
                valid,
                oracle_nats_per_token: 1.0,
                entropy: 1.0,
                distinct: 1.0,
            }],
        };
        let runs = [
            run(RULE, 0, 0.1),
            run(RULE, 1, 0.3),
            run("other", 0, 0.2),
            run("other", 1, 0.26),
        ];
        let mine: Vec<&Finished> = runs[2..].iter().collect();
        assert_eq!(ahead(&runs, &mine, 1), "+3.0 (1 of 2)");
        assert_eq!(ahead(&runs, &mine, 8), "–");
        assert_eq!(
            side_by_side(&mine, 1, |f| 100.0 * f.valid, 1),
            "20.0 · 26.0"
        );
    }
}
