//! Declares the SQL files as inputs of the build. A macro embeds them in a way that Cargo does not
//! track, so without this a changed file would not trigger a rebuild.

fn main() {
    println!("cargo::rerun-if-changed=sql");
}
