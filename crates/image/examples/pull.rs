//! Pulls an image into a store, for measuring and profiling: `pull STORE REFERENCE`.

use std::path::Path;
use std::time::Instant;

use layby_image::client::{Options, Step, pull};
use layby_image::{Reference, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(store), Some(reference)) = (words.next(), words.next()) else {
        return Err("usage: pull STORE REFERENCE".into());
    };
    let store = Store::open(Path::new(&store))?;
    let reference: Reference = reference.parse()?;
    let begun = Instant::now();
    let image = pull(&store, &reference, &Options::default(), &|progress| {
        if !matches!(progress.step, Step::Bytes { .. }) {
            println!("{:>6.3}  {progress:?}", begun.elapsed().as_secs_f64());
        }
    })?;
    println!("{:>6.3}  {}", begun.elapsed().as_secs_f64(), image.digest);
    Ok(())
}
