//! Trains the network on 8,000 of the npm package's digits and tests it on the other 2,000.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss};

use crate::digits::{Split, read_package};
use crate::network::{Network, SHAPES, batch};
use crate::picture::{Ink, SIDE, blank};
use crate::random::Random;

const SEED: u64 = 28;
const EPOCHS: usize = 24;
const BATCH: usize = 50;
/// The step at its largest; it rises over the first epoch and falls to zero by a cosine.
const STEP_MAX: f64 = 4e-3;

/// What `train` must reach on the held-out digits, else it writes nothing.
pub const ACCURACY_MIN: f64 = 0.985;

/// Trains with a fixed seed, prints the accuracy on the held-out digits and writes the weights.
///
/// # Errors
/// When the digits cannot be read, the accuracy is below [`ACCURACY_MIN`], or the file not written.
pub fn train(digits: &Path, weights: &Path) -> anyhow::Result<()> {
    let split = read_package(digits)?;
    let (network, named) = fit(&split)?;
    let held_out = &split.held_out;
    let accuracy = network.accuracy(&held_out.inks()?, &held_out.labels)?;
    report(accuracy, held_out.labels.len());
    anyhow::ensure!(
        accuracy >= ACCURACY_MIN,
        "that is below {ACCURACY_MIN}: {} was left as it is",
        weights.display()
    );
    candle_core::safetensors::save(&named, weights)?;
    println!("wrote {}", weights.display());
    Ok(())
}

/// Prints the accuracy of the weights in this binary on the held-out digits.
///
/// # Errors
/// When the digits cannot be read or the accuracy is below [`ACCURACY_MIN`].
pub fn check(digits: &Path) -> anyhow::Result<()> {
    let held_out = read_package(digits)?.held_out;
    let accuracy = Network::trained()?.accuracy(&held_out.inks()?, &held_out.labels)?;
    report(accuracy, held_out.labels.len());
    anyhow::ensure!(
        accuracy >= ACCURACY_MIN,
        "that is below {ACCURACY_MIN}: train again"
    );
    Ok(())
}

fn report(accuracy: f64, count: usize) {
    println!(
        "accuracy on {count} held-out digits: {:.2} %",
        accuracy * 100.0
    );
}

fn fit(split: &Split) -> anyhow::Result<(Network, HashMap<String, Tensor>)> {
    let mut random = Random::new(SEED);
    let variables = initial(&mut random)?;
    let named: HashMap<String, Tensor> = variables
        .iter()
        .map(|(name, variable)| (name.to_string(), variable.as_tensor().clone()))
        .collect();
    let network = Network::from_named(&named)?;
    let mut optimiser = AdamW::new(
        variables
            .into_iter()
            .map(|(_, variable)| variable)
            .collect(),
        ParamsAdamW {
            lr: STEP_MAX,
            weight_decay: 1e-2,
            ..ParamsAdamW::default()
        },
    )?;

    let (inks, labels) = (split.train.inks()?, &split.train.labels);
    let mut order: Vec<usize> = (0..inks.len()).collect();
    let steps = (EPOCHS * inks.len()).div_ceil(BATCH);
    let mut step = 0;
    for epoch in 1..=EPOCHS {
        random.shuffle(&mut order);
        let mut losses = 0.0;
        for chosen in order.chunks(BATCH) {
            let pictures: Vec<Ink> = chosen
                .iter()
                .map(|&index| bend(&inks[index], &mut random))
                .collect();
            let targets: Vec<u32> = chosen.iter().map(|&index| labels[index].into()).collect();
            let targets = Tensor::from_vec(targets, chosen.len(), &Device::Cpu)?;
            let loss = loss::cross_entropy(&network.forward(&batch(&pictures)?)?, &targets)?;
            optimiser.set_learning_rate(step_size(step, steps));
            optimiser.backward_step(&loss)?;
            losses += f64::from(loss.to_scalar::<f32>()?) * chosen.len() as f64;
            step += 1;
        }
        println!(
            "epoch {epoch:2} of {EPOCHS}: loss {:.4}",
            losses / inks.len() as f64
        );
    }
    Ok((network, named))
}

/// Random weights of He's size (He et al., "Delving deep into rectifiers", 2015), biases of zero.
fn initial(random: &mut Random) -> candle_core::Result<Vec<(&'static str, Var)>> {
    let mut variables = Vec::new();
    for (name, shape) in SHAPES {
        let inputs: usize = shape[1..].iter().product();
        let bound = if shape.len() == 1 {
            0.0
        } else {
            (6.0 / inputs as f32).sqrt()
        };
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| random.between(-bound, bound))
            .collect();
        variables.push((name, Var::from_vec(values, shape, &Device::Cpu)?));
    }
    Ok(variables)
}

fn step_size(step: usize, steps: usize) -> f64 {
    let warm_up = (steps / EPOCHS) as f64;
    let done = step as f64 / steps as f64;
    let rise = ((step + 1) as f64 / warm_up).min(1.0);
    STEP_MAX * rise * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// A slightly turned, sheared, scaled and shifted copy: no two epochs see the same picture, so that
/// 8,000 digits teach what handwriting varies in.
fn bend(ink: &Ink, random: &mut Random) -> Ink {
    let angle = random.between(-0.2, 0.2);
    let shear = random.between(-0.15, 0.15);
    let (scale_x, scale_y) = (random.between(0.88, 1.12), random.between(0.88, 1.12));
    let (shift_x, shift_y) = (random.between(-1.5, 1.5), random.between(-1.5, 1.5));
    let (sin, cos) = angle.sin_cos();
    let middle = (SIDE as f32 - 1.0) / 2.0;
    let mut bent = blank();
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (from_x, from_y) = (x as f32 - middle - shift_x, y as f32 - middle - shift_y);
            let from_x = (from_x + shear * from_y) / scale_x;
            let from_y = from_y / scale_y;
            bent[y * SIDE + x] = sample(
                ink,
                cos * from_x - sin * from_y + middle,
                sin * from_x + cos * from_y + middle,
            );
        }
    }
    bent
}

/// The value at a place between pixels, bilinear; 0 outside.
fn sample(ink: &Ink, x: f32, y: f32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (right_part, lower_part) = (x - left, y - top);
    let at = |x: f32, y: f32| {
        let inside = (0.0..SIDE as f32).contains(&x) && (0.0..SIDE as f32).contains(&y);
        if inside {
            ink[y as usize * SIDE + x as usize]
        } else {
            0.0
        }
    };
    let upper = at(left, top) * (1.0 - right_part) + at(left + 1.0, top) * right_part;
    let lower = at(left, top + 1.0) * (1.0 - right_part) + at(left + 1.0, top + 1.0) * right_part;
    upper * (1.0 - lower_part) + lower * lower_part
}

#[cfg(test)]
mod tests {
    use super::{STEP_MAX, sample, step_size};
    use crate::picture::{SIDE, blank};

    #[test]
    fn sampling_between_two_pixels_gives_their_mean_and_nothing_outside() {
        let mut ink = blank();
        ink[5 * SIDE + 5] = 1.0;
        assert_eq!(sample(&ink, 5.0, 5.0), 1.0);
        assert_eq!(sample(&ink, 5.5, 5.0), 0.5);
        assert_eq!(sample(&ink, -3.0, 40.0), 0.0);
    }

    #[test]
    fn the_step_rises_and_then_falls_to_nearly_nothing() {
        assert!(step_size(0, 2400) < STEP_MAX / 50.0);
        assert!(step_size(150, 2400) > STEP_MAX * 0.95);
        assert!(step_size(2399, 2400) < STEP_MAX / 1000.0);
    }
}
