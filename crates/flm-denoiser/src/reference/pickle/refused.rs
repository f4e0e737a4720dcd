//! Modules and functions that no checkpoint needs.

/// Modules that run programs, open files and sockets, or fetch code.
const MODULES: [&str; 33] = [
    "_posixsubprocess",
    "asyncio",
    "bdb",
    "code",
    "commands",
    "ctypes",
    "ftplib",
    "http",
    "idlelib",
    "importlib",
    "inspect",
    "io",
    "marshal",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "posix",
    "profile",
    "pty",
    "requests",
    "runpy",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "timeit",
    "urllib",
    "webbrowser",
];

/// Built-in functions that run code or access objects by name.
const BUILTINS: [&str; 14] = [
    "__import__",
    "apply",
    "breakpoint",
    "compile",
    "delattr",
    "eval",
    "exec",
    "execfile",
    "getattr",
    "globals",
    "input",
    "locals",
    "open",
    "setattr",
];

/// Whether `module.name` is one of these.
pub(super) fn is_refused(module: &str, name: &str) -> bool {
    let root = module.split('.').next().unwrap_or_default();
    let first = name.split('.').next().unwrap_or_default();
    match root {
        "builtins" | "__builtin__" => BUILTINS.contains(&first),
        _ => MODULES.contains(&root),
    }
}
