//! Every model, trained once.

use super::entrants::{ENTRANTS, Entrant, JUDGE, JUDGE_SEED};
use super::{Finished, Study};
use crate::pipeline::runs::{Trained, name, read, same, same_words, set, words};
use crate::pipeline::write;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;

/// Models that follow from one another, of one seed.
type Chain = Vec<(&'static Entrant, u64)>;

impl Study<'_> {
    /// Trains what is not trained yet, so many models at a time as there are jobs.
    pub(super) fn train_all(&self) -> anyhow::Result<()> {
        let waiting = Mutex::new(self.chains());
        let work = || -> anyhow::Result<()> {
            loop {
                let next = waiting.lock().expect("no worker panics").pop_front();
                let Some(chain) = next else { return Ok(()) };
                for (entrant, seed) in chain {
                    if let Err(error) = self.train(entrant, seed) {
                        // The others finish what they have begun, and begin nothing.
                        waiting.lock().expect("no worker panics").clear();
                        return Err(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.arguments.jobs)
                .map(|_| scope.spawn(work))
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("no worker panics"))
        })
    }

    fn chains(&self) -> VecDeque<Chain> {
        let mut chains = VecDeque::new();
        if self.arguments.text.is_some() {
            chains.push_back(vec![(&JUDGE, JUDGE_SEED)]);
        }
        for &seed in &self.arguments.seeds {
            let firsts = |e: &&Entrant| e.teacher.is_none() && e.model.is_none();
            for first in ENTRANTS.iter().filter(firsts) {
                let pupils = ENTRANTS.iter().filter(|e| e.teacher == Some(first.name));
                let chain = std::iter::once(first).chain(pupils);
                let chain: Chain = chain.map(|entrant| (entrant, seed)).collect();
                // A pupil that is not known needs its teacher.
                if chain
                    .iter()
                    .any(|(entrant, seed)| self.known(entrant, *seed).is_none())
                {
                    chains.push_back(chain);
                }
            }
        }
        chains
    }

    /// Trains a model, or reads what its training took.
    ///
    /// One whose teacher, or whose own weights, changed since is trained anew.
    pub(super) fn train(&self, entrant: &Entrant, seed: u64) -> anyhow::Result<Trained> {
        let name = name(entrant.name, seed);
        let arguments = self.training(entrant, seed);
        let command = self.runs.command(&name, &arguments);
        let place = PathBuf::from(self.runs.path(&["trained", &format!("{name}.json")]));
        let teacher = match entrant.teacher {
            Some(teacher) => Some(self.weights(teacher, seed)?),
            None => None,
        };
        let mut anew = false;
        if place.is_file() {
            let trained: Trained = read(&place)?;
            same(&place, &trained.command, &command)?;
            if trained.weights == self.weights(entrant.name, seed)? && trained.teacher == teacher {
                return Ok(trained);
            }
            println!(
                "the model or its teacher was trained again since: {}",
                place.display()
            );
            anew = true;
        }
        println!("{}, seed {seed}", entrant.name);
        let mut trained = self.runs.train(&name, &arguments, anew)?;
        trained.jobs = self.arguments.jobs;
        trained.weights = self.weights(entrant.name, seed)?;
        trained.teacher = teacher;
        write(&place, &serde_json::to_string_pretty(&trained)?)?;
        Ok(trained)
    }

    /// What an earlier page tells of a model of these settings, where one is to be taken from.
    pub(super) fn known(&self, entrant: &Entrant, seed: u64) -> Option<&Finished> {
        let mut runs = self.earlier.as_ref()?.runs.iter();
        let run = runs.find(|run| run.entrant == entrant.name && run.seed == seed)?;
        let model = self.model(entrant);
        let command = self
            .runs
            .command(&name(model.name, seed), &self.training(model, seed));
        // What another command made is made anew.
        same_words(&run.trained.command, &command).then_some(run)
    }

    fn training(&self, entrant: &Entrant, seed: u64) -> Vec<String> {
        let preset = self.arguments.preset.as_deref();
        let preset = preset.unwrap_or_else(|| entrant.of_grammar());
        let (mut arguments, section, budget, more) = match entrant.teacher {
            Some(teacher) => (
                words(&[
                    "distill",
                    "--preset",
                    preset,
                    "--teacher",
                    &self.run(teacher, seed),
                ]),
                "distill.train.",
                self.arguments.distillation,
                &self.size.distilling,
            ),
            None => (
                words(&["train", "--preset", preset]),
                "train.",
                self.arguments.evaluations,
                &self.size.training,
            ),
        };
        if self.arguments.preset.is_some() {
            if entrant.teacher.is_none() {
                arguments.extend(set("model.family=", &[entrant.family]));
            }
            arguments.extend(set("", entrant.on_text));
        } else {
            arguments.extend(set("", entrant.on_grammar));
        }
        let budget = budget.to_string();
        arguments.extend(words(&["--data", &self.data(), "--evaluations", &budget]));
        arguments.extend(set(section, &[&format!("seed={seed}")]));
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        arguments.extend(set("", &more));
        arguments.extend(self.place());
        arguments
    }
}
