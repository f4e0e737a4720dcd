//! No cycles between the modules of a crate. A module and its submodules count as one. Paths in macro arguments
//! and glob imports are not seen.

use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, UseTree};

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Cycles of modules of a source folder, as chains `a → b → a`.
pub(super) fn cycles(source: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    collect(source, &mut files)?;
    let parsed: Vec<(Vec<String>, File)> = files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)?;
            let file = syn::parse_file(&text);
            let file = file.with_context(|| format!("cannot parse {}", path.display()))?;
            Ok((module_of(source, path), file))
        })
        .collect::<anyhow::Result<_>>()?;
    let names: BTreeSet<String> = parsed
        .iter()
        .filter_map(|(module, _)| module.first().cloned())
        .collect();
    let mut exports = BTreeMap::new();
    for (module, file) in &parsed {
        if module.is_empty() {
            for item in &file.items {
                if let Item::Use(item) = item {
                    flatten(&item.tree, &mut Vec::new(), &mut |path, name| {
                        let first = path.iter().find(|part| *part != "crate" && *part != "self");
                        if let Some(module) = first.filter(|part| names.contains(*part)) {
                            exports.insert(name.to_owned(), module.clone());
                        }
                    });
                }
            }
        }
    }
    let mut edges = Edges::new();
    for (module, file) in &parsed {
        let Some(own) = module.first() else { continue };
        let mut paths = Paths(Vec::new());
        paths.visit_file(file);
        for path in paths.0 {
            let target = from_root(&path, module.len())
                .and_then(|name| names.get(name).or_else(|| exports.get(name)).cloned());
            if let Some(target) = target.filter(|target| target != own) {
                edges.entry(own.clone()).or_default().insert(target);
            }
        }
    }
    Ok(find(&edges))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "tests" {
            files.push(path);
        }
    }
    Ok(())
}

/// The path of a file's module from the crate's root; empty for the root.
fn module_of(source: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source).unwrap_or(file).with_extension("");
    let parts = relative
        .iter()
        .map(|part| part.to_string_lossy().into_owned());
    parts
        .filter(|part| !["lib", "main", "mod"].contains(&part.as_str()))
        .collect()
}

/// The first name of a path below the crate's root, as written in a module `depth` levels deep.
fn from_root(path: &[String], depth: usize) -> Option<&str> {
    let up = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => path.get(1).map(String::as_str),
        "super" if up == depth => path.get(up).map(String::as_str),
        _ => None,
    }
}

/// Every path that a file uses outside its tests.
struct Paths(Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &mut Vec::new(), &mut |path, _| {
            self.0.push(path.to_vec());
        });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.0
            .push(segments.map(|part| part.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn is_test(attribute: &Attribute) -> bool {
    let is = |list: &syn::MetaList| list.tokens.to_string() == "test";
    attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is)
}

/// Calls `found` with every path of a `use`, and the name that it is used by.
fn flatten(tree: &UseTree, before: &mut Vec<String>, found: &mut dyn FnMut(&[String], &str)) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, before, found);
            }
        }
        UseTree::Name(name) => end(before, name.ident.to_string(), None, found),
        UseTree::Rename(name) => {
            end(
                before,
                name.ident.to_string(),
                Some(name.rename.to_string()),
                found,
            );
        }
        UseTree::Glob(_) => found(before, "*"),
    }
}

fn end(
    before: &mut Vec<String>,
    name: String,
    alias: Option<String>,
    found: &mut dyn FnMut(&[String], &str),
) {
    let known = alias.unwrap_or_else(|| name.clone());
    before.push(name);
    found(before, &known);
    before.pop();
}

/// A shortest cycle through each module; each cycle once.
fn find(edges: &Edges) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut cycles = Vec::new();
    for start in edges.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(way) = way_back(edges, start) {
            seen.extend(way.iter().cloned());
            cycles.push(format!("{} → {start}", way.join(" → ")));
        }
    }
    cycles
}

fn way_back(edges: &Edges, start: &String) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut reached = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in edges.get(way.last()?).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if reached.insert(next.clone()) {
                    longer.push(way.iter().chain([next]).cloned().collect());
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_through_a_reexport_is_found_and_one_of_tests_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("lib.rs", "mod a; mod b; mod c; pub use a::A;");
        write("a.rs", "mod deep; pub struct A(crate::b::B);");
        write("a/deep.rs", "use super::super::c::C;");
        write("b.rs", "pub struct B; fn f(_: crate::A) {}");
        write(
            "c.rs",
            "pub struct C; #[cfg(test)] mod tests { use crate::A; }",
        );
        assert_eq!(cycles(folder.path()).unwrap(), ["a → b → a"]);
    }
}
