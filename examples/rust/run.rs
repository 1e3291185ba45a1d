//! Runs a program in a sandbox and tells what came of it: `cargo run --example run -- /bin/sh -c 'id; echo hello'`.

use std::time::Duration;

fn main() -> Result<(), sandcell::Error> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().unwrap_or_else(|| "/usr/bin/id".into());
    let sandbox = sandcell::Sandbox::builder().timeout(Duration::from_secs(10)).build()?;
    let output = sandbox.command(program).args(arguments).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    println!("it {}, as UID {} in {:?}", output.outcome, output.identity.uid, output.usage.wall);
    Ok(())
}
