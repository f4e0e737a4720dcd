//! Downloads from correct and faulty hosts.

#![cfg(feature = "fetch")]

#[path = "fetching/host.rs"]
mod host;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flm_data::{DataFiles, FetchError, FetchOptions, Manifest, fetch};
use host::{Host, Reply};
use sha2::{Digest, Sha256};

/// Returns several blocks of pseudorandom bytes.
fn content(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..600_000).map(|_| next()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

const HEAD: &str = r#"
format = 1
title = "Letters"
license = "mine"
page = "https://example.org/letters"
split = { share = 0.1 }
column = "text"
unit = "lines"
detokenizer = "none"
tokenizer = { name = "words" }
length = 128
layout = "packed"
"#;

/// Creates a data set of one file on the host, with additional keys.
fn one_file(host: &Host, keys: &str) -> Manifest {
    let url = format!("{}/letters.txt", host.address);
    let text = format!("{HEAD}\n[[train]]\nurl = {url:?}\n{keys}\n");
    Manifest::parse(&text, "letters").unwrap()
}

fn options(cache: &Path) -> FetchOptions {
    FetchOptions {
        backoff: Duration::from_millis(1),
        timeout: Duration::from_secs(10),
        ..FetchOptions::new(cache)
    }
}

fn get(manifest: &Manifest, options: &FetchOptions) -> Result<DataFiles, FetchError> {
    fetch(manifest, options, &mut |_| ControlFlow::Continue(()))
}

/// Returns all paths in a folder and its subfolders.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(self::names(&path));
        } else {
            names.push(path);
        }
    }
    names
}

/// Checks that neither the file nor a part of it exists.
fn assert_nothing_is_left(cache: &Path) {
    let letters = |path: &PathBuf| path.to_string_lossy().contains("letters.txt");
    let left: Vec<PathBuf> = names(cache).into_iter().filter(letters).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_file_comes_once_and_is_told_block_by_block() {
    let text = content(1);
    let served = text.clone();
    let host = Host::start(move |request, _| Reply::file(request, &served, "\"a\""));
    let cache = tempfile::tempdir().unwrap();
    let manifest = one_file(&host, "");
    let mut told = Vec::new();
    let files = fetch(&manifest, &options(cache.path()), &mut |progress| {
        assert_eq!((progress.index, progress.files), (0, 1));
        told.push((progress.file.to_owned(), progress.bytes, progress.size));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(
        files.train,
        [cache.path().join("letters/train/letters.txt")]
    );
    assert!(files.validation.is_empty() && files.tokenizer.is_none());
    assert_eq!(fs::read(&files.train[0]).unwrap(), text);
    assert!(told.is_sorted_by_key(|(_, bytes, _)| *bytes));
    let size = text.len() as u64;
    assert_eq!(
        told.last(),
        Some(&("train/letters.txt".to_owned(), size, Some(size)))
    );
    let parts = |path: &PathBuf| path.to_string_lossy().contains(".part");
    assert!(!names(cache.path()).iter().any(parts));

    assert_eq!(get(&manifest, &options(cache.path())).unwrap(), files);
    assert_eq!(host.requests().len(), 1, "present files are not requested");
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let text = content(2);
    let served = text.clone();
    // Each request delivers a seventh of the file. This is progress, so two retries are enough.
    let host =
        Host::start(move |request, _| Reply::file(request, &served, "\"a\"").cut(served.len() / 7));
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        retries: 2,
        ..options(cache.path())
    };
    let files = get(&one_file(&host, ""), &options).unwrap();
    assert_eq!(fs::read(&files.train[0]).unwrap(), text);
    let requests = host.requests();
    assert!(requests.len() > 6, "{requests:?}");
    assert_eq!(requests[0].range, None);
    assert!(
        requests
            .iter()
            .skip(1)
            .all(|request| request.range > Some(0))
    );
    assert!(requests.is_sorted_by_key(|request| request.range));
    assert!(
        requests[1..]
            .iter()
            .all(|request| request.if_range.as_deref() == Some("\"a\""))
    );
}

#[test]
fn the_next_call_goes_on_after_a_stop() {
    let text = content(3);
    let served = text.clone();
    let host = Host::start(move |request, _| Reply::file(request, &served, "\"a\""));
    let cache = tempfile::tempdir().unwrap();
    let manifest = one_file(&host, "");
    let error = fetch(
        &manifest,
        &options(cache.path()),
        &mut |progress| match progress.bytes > 200_000 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        },
    );
    assert!(matches!(error, Err(FetchError::Cancelled)));
    assert!(!cache.path().join("letters/train/letters.txt").exists());
    let files = get(&manifest, &options(cache.path())).unwrap();
    assert_eq!(fs::read(&files.train[0]).unwrap(), text);
    assert!(host.requests()[1].range > Some(200_000));
}

#[test]
fn a_host_without_ranges_is_heard_from_the_beginning() {
    let text = content(4);
    let served = text.clone();
    let host = Host::start(move |_, before| {
        let mut reply = Reply::whole(&served);
        reply.headers.push(("ETag", "\"a\"".to_owned()));
        if before < 2 {
            reply.cut(300_000)
        } else {
            reply
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let files = get(&one_file(&host, ""), &options(cache.path())).unwrap();
    assert_eq!(fs::read(&files.train[0]).unwrap(), text);
    assert!(
        host.requests()[1].range.is_some(),
        "the rest of the file was requested"
    );
}

#[test]
fn a_file_that_has_changed_is_not_spliced() {
    let (old, new) = (content(5), content(6));
    // The second host ignores If-Range, but its tag shows the change.
    for is_careful in [true, false] {
        let (old, new_served) = (old.clone(), new.clone());
        let host = Host::start(move |request, before| {
            if before == 0 {
                return Reply::file(request, &old, "\"old\"").cut(300_000);
            }
            let mut request = request.clone();
            request.if_range = request.if_range.filter(|_| is_careful);
            Reply::file(&request, &new_served, "\"new\"")
        });
        let cache = tempfile::tempdir().unwrap();
        let files = get(&one_file(&host, ""), &options(cache.path())).unwrap();
        assert!(
            fs::read(&files.train[0]).unwrap() == new,
            "careful: {is_careful}"
        );
    }
}

#[test]
fn without_a_mark_or_a_checksum_nothing_is_taken_up() {
    for tag in ["", "W/\"weak\""] {
        let text = content(7);
        let served = text.clone();
        let host = Host::start(move |request, before| {
            let reply = Reply::file(request, &served, tag);
            if before == 0 {
                reply.cut(300_000)
            } else {
                reply
            }
        });
        let cache = tempfile::tempdir().unwrap();
        let files = get(&one_file(&host, ""), &options(cache.path())).unwrap();
        assert_eq!(fs::read(&files.train[0]).unwrap(), text);
        assert_eq!(host.requests()[1].range, None);
    }
    // A checksum also allows resuming.
    let text = content(7);
    let served = text.clone();
    let host = Host::start(move |request, before| {
        let reply = Reply::file(request, &served, "");
        if before == 0 {
            reply.cut(300_000)
        } else {
            reply
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let manifest = one_file(&host, &format!("sha256 = {:?}", sha256(&text)));
    let files = get(&manifest, &options(cache.path())).unwrap();
    assert_eq!(fs::read(&files.train[0]).unwrap(), text);
    assert!(host.requests()[1].range.is_some());
}

#[test]
fn a_wrong_size_is_refused_at_once() {
    let text = content(8);
    let host = Host::start(move |request, _| Reply::file(request, &text, "\"a\""));
    let cache = tempfile::tempdir().unwrap();
    let error = get(&one_file(&host, "bytes = 5"), &options(cache.path())).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}/letters.txt has 600000 bytes, expected 5", host.address)
    );
    assert_eq!(host.requests().len(), 1);
    assert_nothing_is_left(cache.path());
}

#[test]
fn a_wrong_checksum_is_refused_and_nothing_is_kept() {
    let (text, other) = (content(9), content(10));
    let expected = sha256(&other);
    let found = sha256(&text);
    let host = Host::start(move |request, _| Reply::file(request, &text, "\"a\""));
    let cache = tempfile::tempdir().unwrap();
    let manifest = one_file(&host, &format!("sha256 = {expected:?}"));
    let error = get(&manifest, &options(cache.path())).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}/letters.txt has SHA-256 {found}, expected {expected}; the download was deleted",
            host.address
        )
    );
    assert_eq!(host.requests().len(), 1);
    assert_nothing_is_left(cache.path());
}

#[test]
fn two_halves_that_do_not_belong_together_are_fetched_again() {
    let (old, new) = (content(11), content(12));
    let served = new.clone();
    // The tag stays the same, although the file changes.
    let host = Host::start(move |request, before| match before {
        0 => Reply::file(request, &old, "\"a\"").cut(300_000),
        _ => Reply::file(request, &served, "\"a\""),
    });
    let cache = tempfile::tempdir().unwrap();
    let manifest = one_file(&host, &format!("sha256 = {:?}", sha256(&new)));
    let files = get(&manifest, &options(cache.path())).unwrap();
    assert_eq!(fs::read(&files.train[0]).unwrap(), new);
    let ranges: Vec<bool> = host
        .requests()
        .iter()
        .map(|request| request.range.is_some())
        .collect();
    assert_eq!(ranges, [false, true, false]);
}

#[test]
fn a_busy_host_is_waited_for_and_a_clear_answer_is_taken() {
    let text = content(13);
    let served = text.clone();
    let host = Host::start(move |request, before| match before {
        0 => Reply::status(503),
        1 => Reply::status(429),
        _ => Reply::file(request, &served, "\"a\""),
    });
    let cache = tempfile::tempdir().unwrap();
    let files = get(&one_file(&host, ""), &options(cache.path())).unwrap();
    assert_eq!(fs::read(&files.train[0]).unwrap(), text);

    for (status, hint) in [
        (404, "the file does not exist"),
        (403, "it may need an account"),
    ] {
        let host = Host::start(move |_, _| Reply::status(status));
        let cache = tempfile::tempdir().unwrap();
        let message = get(&one_file(&host, ""), &options(cache.path()))
            .unwrap_err()
            .to_string();
        let expected = format!(
            "{}/letters.txt returned status {status}: {hint}",
            host.address
        );
        assert!(message.starts_with(&expected), "{message}");
        assert_eq!(host.requests().len(), 1);
        assert!(!cache.path().join("letters/train/letters.txt").exists());
    }
}

#[test]
fn one_program_at_a_time() {
    let host = Host::start(|request, _| Reply::file(request, &content(14), "\"a\""));
    let cache = tempfile::tempdir().unwrap();
    let manifest = one_file(&host, "");
    let mut inner = None;
    let outer = fetch(&manifest, &options(cache.path()), &mut |_| {
        inner.get_or_insert_with(|| get(&manifest, &options(cache.path())));
        ControlFlow::Continue(())
    });
    outer.unwrap();
    assert!(matches!(inner, Some(Err(FetchError::Busy { .. }))));
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Creates a data set on the Hub: two files of a pattern, one validation file, and a tokenizer.
fn on_hub(revision: &str) -> Manifest {
    let head = HEAD.replace("{ share = 0.1 }", "\"files\"").replace(
        "{ name = \"words\" }",
        &format!("{{ name = \"t\", file = {{ repo = \"they/t\", revision = {COMMIT:?}, path = \"t.json\" }} }}"),
    );
    let text = format!(
        "{head}\n[[train]]\nrepo = \"me/letters\"\nrevision = {revision:?}\npath = \"d/train/*.txt\"\nfiles = 2\n\
         \n[[validation]]\nrepo = \"me/letters\"\nrevision = {revision:?}\npath = \"d/test/0.txt\"\n"
    );
    Manifest::parse(&text, "letters").unwrap()
}

/// Starts a Hub with these repositories. The content of a file is its path.
fn hub(listing: impl Fn(&str) -> serde_json::Value + Send + 'static) -> Host {
    Host::start(move |request, _| {
        if let Some(api) = request.path.strip_prefix("/api/") {
            return Reply::whole(listing(api).to_string().as_bytes());
        }
        // Real CDNs are on other hosts; this one is on the same host.
        match request.path.strip_prefix("/cdn") {
            Some(path) => Reply::file(request, path.as_bytes(), "\"a\""),
            None => {
                let mut reply = Reply::status(302);
                reply
                    .headers
                    .push(("Location", format!("/cdn{}", request.path)));
                reply
            }
        }
    })
}

fn letters(api: &str) -> serde_json::Value {
    let file = |path: &str| {
        let content = format!("/datasets/me/letters/resolve/refs%2Fconvert%2Fparquet/{path}");
        let hash = sha256(content.as_bytes());
        serde_json::json!({"rfilename": path, "size": content.len(), "lfs": {"sha256": hash, "size": content.len()}})
    };
    match api {
        "datasets/me/letters/revision/refs%2Fconvert%2Fparquet?blobs=true" => {
            serde_json::json!({"siblings": [
            file("d/train/1.txt"), file("d/train/0.txt"), file("d/test/0.txt"), file("README.md"),
        ], "sha": COMMIT})
        }
        _ => serde_json::json!({"siblings": [{"rfilename": "t.json"}]}),
    }
}

#[test]
fn the_hub_lists_what_a_pattern_stands_for() {
    let host = hub(letters);
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        endpoint: host.address.clone(),
        token: Some("secret".to_owned()),
        ..options(cache.path())
    };
    assert!(!format!("{options:?}").contains("secret"));
    let manifest = on_hub("refs/convert/parquet");
    let files = get(&manifest, &options).unwrap();
    let root = cache.path().join("letters");
    assert_eq!(
        files.train,
        [root.join("train/0.txt"), root.join("train/1.txt")]
    );
    assert_eq!(files.validation, [root.join("validation/0.txt")]);
    assert_eq!(files.tokenizer, Some(root.join("tokenizer.json")));
    assert_eq!(
        fs::read_to_string(&files.train[1]).unwrap(),
        "/datasets/me/letters/resolve/refs%2Fconvert%2Fparquet/d/train/1.txt"
    );
    let requests = host.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.token.as_deref() == Some("Bearer secret"))
    );
    let lists = requests
        .iter()
        .filter(|request| request.path.starts_with("/api/"))
        .count();
    assert_eq!(lists, 2, "each repository once");

    // A complete data set needs no network, and `take` accepts it as a copy.
    let offline = FetchOptions {
        endpoint: "http://127.0.0.1:9".to_owned(),
        ..options.clone()
    };
    assert_eq!(get(&manifest, &offline).unwrap(), files);
    assert_eq!(manifest.take(&root).unwrap(), files);
    assert_eq!(host.requests().len(), requests.len());

    // Only the missing file is requested again.
    fs::remove_file(&files.train[0]).unwrap();
    get(&manifest, &options).unwrap();
    let again: Vec<String> = host.requests()[requests.len()..]
        .iter()
        .map(|request| request.path.clone())
        .filter(|path| path.starts_with("/cdn"))
        .collect();
    assert_eq!(
        again,
        ["/cdn/datasets/me/letters/resolve/refs%2Fconvert%2Fparquet/d/train/0.txt"]
    );
}

#[test]
fn a_listing_that_does_not_fit_is_refused() {
    let cases = [
        (
            serde_json::json!({"siblings": [{"rfilename": "d/train/0.txt"}]}),
            "has 1 files matching d/train/*.txt, expected 2",
        ),
        (serde_json::json!({"files": []}), "is not a list of files: "),
    ];
    for (listing, expected) in cases {
        let host = hub(move |_| listing.clone());
        let cache = tempfile::tempdir().unwrap();
        let options = FetchOptions {
            endpoint: host.address.clone(),
            ..options(cache.path())
        };
        let message = get(&on_hub("main"), &options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    // A name that points outside the folder.
    let host = hub(|_| serde_json::json!({"siblings": [{"rfilename": "../evil.txt"}]}));
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        endpoint: host.address.clone(),
        ..options(cache.path())
    };
    let text = format!(
        "{HEAD}\n[[train]]\nrepo = \"me/letters\"\nrevision = \"main\"\npath = \"*/*.txt\"\n"
    );
    let manifest = Manifest::parse(&text, "letters").unwrap();
    let message = get(&manifest, &options).unwrap_err().to_string();
    assert!(
        message.ends_with("is not a list of files: `../evil.txt` is not a path in a repository"),
        "{message}"
    );
}

#[test]
fn offline_the_error_lists_what_to_bring_and_then_takes_it() {
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        // No server listens on this port.
        endpoint: "http://127.0.0.1:9".to_owned(),
        retries: 1,
        ..options(cache.path())
    };
    let manifest = on_hub("main");
    let root = cache.path().join("letters");
    let place = root.display();
    let message = get(&manifest, &options).unwrap_err().to_string();
    let head = "cannot reach http://127.0.0.1:9/api/datasets/me/letters/revision/main?blobs=true (";
    assert!(message.starts_with(head), "{message}");
    let list = format!(
        "put the missing files of letters at these paths and run again:\n  \
         {place}/train/*.txt (from http://127.0.0.1:9/datasets/me/letters/tree/main/d/train);\n  \
         {place}/validation/0.txt (from http://127.0.0.1:9/datasets/me/letters/resolve/main/d/test/0.txt);\n  \
         {place}/tokenizer.json (from http://127.0.0.1:9/they/t/resolve/{COMMIT}/t.json)"
    );
    assert!(message.ends_with(&list), "{message}\n{list}");

    for file in ["train/0.txt", "train/1.txt", "validation/0.txt"] {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), file).unwrap();
    }
    let message = get(&manifest, &options).unwrap_err().to_string();
    let list = format!(
        "again:\n  {place}/tokenizer.json (from http://127.0.0.1:9/they/t/resolve/{COMMIT}/t.json)"
    );
    assert!(message.ends_with(&list), "{message}");
    fs::write(root.join("tokenizer.json"), "{}").unwrap();
    let files = get(&manifest, &options).unwrap();
    assert_eq!(
        files.train,
        [root.join("train/0.txt"), root.join("train/1.txt")]
    );
    assert_eq!(files.tokenizer, Some(root.join("tokenizer.json")));
}
