//! The guide for Next.js shows the files of `examples/nextjs` unchanged.

use std::path::Path;

use rapport::config::source::{ProcessEnvironment, Source as _};

const GUIDE: &str = "docs/nextjs.md";

/// Returns the guide in which each code block after a link to a file contains the text of that
/// file.
fn with_files(guide: &str, root: &Path) -> String {
    let mut written = String::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        written.push_str(line);
        written.push('\n');
        let link = line
            .split_once("](../examples/nextjs/")
            .filter(|(name, _)| name.starts_with("[`"))
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        let Some(file) = link else { continue };
        let (blank, fence) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(blank.is_empty() && fence.starts_with("```"), "{file}");
        let text = std::fs::read_to_string(root.join("examples/nextjs").join(file)).unwrap();
        assert!(!text.contains("```"), "{file}");
        written.push_str(&format!("\n{fence}\n{text}```\n"));
        lines.by_ref().find(|line| *line == "```").unwrap();
    }
    written
}

#[test]
fn the_guide_shows_the_files_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(root.join(GUIDE)).unwrap();
    let wanted = with_files(&guide, root);
    assert!(wanted.contains("export class UserChatAPI"));
    if ProcessEnvironment.get("WRITE_SNAPSHOTS").is_some() {
        std::fs::write(root.join(GUIDE), wanted).unwrap();
        return;
    }
    assert_eq!(
        guide, wanted,
        "the guide is stale: run `WRITE_SNAPSHOTS=1 cargo test --test it nextjs_guide`"
    );
}
