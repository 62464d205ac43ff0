//! Tells cargo that the SQL files are part of the program: they are embedded through a macro that
//! cargo does not see, and without this a changed file would not be picked up.

fn main() {
    println!("cargo::rerun-if-changed=sql");
}
