//! Generates the list of all `<event>/NNN.avsc` files, so that a new version needs a new file and no code.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let mut versions = Vec::new();
    for entry in fs::read_dir(&root)? {
        let folder = entry?.path();
        let Some(event) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if !folder.is_dir() || !event.contains(".v") {
            continue;
        }
        println!("cargo::rerun-if-changed={}", folder.display());
        for file in fs::read_dir(&folder)? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "avsc") {
                let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                let number: u32 =
                    stem.parse().map_err(|_| format!("{}: the file name is not NNN.avsc", file.display()))?;
                versions.push((event.to_owned(), number, file.display().to_string()));
            }
        }
    }
    versions.sort();
    let mut code = String::from("pub(crate) const FILES: &[(&str, u32, &str)] = &[\n");
    for (event, number, path) in versions {
        writeln!(code, "    ({event:?}, {number}, include_str!({path:?})),")?;
    }
    code.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("files.rs"), code)?;
    // A new event is a new folder, so the root is watched as well.
    println!("cargo::rerun-if-changed={root}");
    Ok(())
}
