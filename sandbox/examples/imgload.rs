use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let store = sandcell::image::Store::open(&a[1]).unwrap();
    let t = Instant::now();
    let source = if a.len() > 3 {
        sandcell::image::Source::RootFs(a[2].clone().into())
    } else {
        sandcell::image::Source::Detect(a[2].clone().into())
    };
    println!("{:?}", store.load(&source, &sandcell::image::Load::new()).map_err(|e| e.to_string()));
    println!("{:?}", t.elapsed());
}
