//! The convolutional network: 28x28 grey values in, ten probabilities out.

use std::collections::HashMap;

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax;

use crate::picture::{Ink, SIDE};

/// The trained weights, about 73 kB: part of the binary, so that the image holds one file.
static WEIGHTS: &[u8] = include_bytes!("../weights/mnist.safetensors");

/// Names and shapes of the network's tensors, in the order of the computation.
///
/// Kernels are (output channels, input channels, height, width); `full.weight` is (outputs, inputs).
pub const SHAPES: [(&str, &[usize]); 6] = [
    ("first.kernel", &[16, 1, 5, 5]),
    ("first.bias", &[16]),
    ("second.kernel", &[32, 16, 5, 5]),
    ("second.bias", &[32]),
    ("full.weight", &[10, 512]),
    ("full.bias", &[10]),
];

/// Two convolutions of 5x5, each with a rectifier and a pooling of 2x2, then one full layer
/// (after LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition", 1998).
#[derive(Debug)]
pub struct Network {
    tensors: [Tensor; 6],
}

/// What the network thinks of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// The likeliest digit, 0 to 9.
    pub digit: u8,
    /// The probability of each digit from 0 to 9; they add up to 1.
    pub probabilities: [f32; 10],
}

impl Network {
    /// The network with the weights that are part of this binary.
    ///
    /// # Errors
    /// When the embedded file does not hold the tensors of [`SHAPES`]; the tests rule that out.
    pub fn trained() -> candle_core::Result<Network> {
        Network::from_named(&candle_core::safetensors::load_buffer(
            WEIGHTS,
            &Device::Cpu,
        )?)
    }

    /// The network with the given tensors, named and shaped as in [`SHAPES`].
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn from_named(named: &HashMap<String, Tensor>) -> candle_core::Result<Network> {
        let mut tensors = Vec::with_capacity(SHAPES.len());
        for (name, shape) in SHAPES {
            let Some(tensor) = named.get(name) else {
                candle_core::bail!("the weights have no tensor named {name}");
            };
            if tensor.dims() != shape {
                candle_core::bail!("{name} has the shape {:?}, not {shape:?}", tensor.dims());
            }
            tensors.push(tensor.clone());
        }
        match <[Tensor; 6]>::try_from(tensors) {
            Ok(tensors) => Ok(Network { tensors }),
            Err(_) => candle_core::bail!("the weights do not hold six tensors"),
        }
    }

    /// Logits of a batch: (batch, 1, 28, 28) in, (batch, 10) out.
    ///
    /// # Errors
    /// When the batch has another shape.
    pub fn forward(&self, batch: &Tensor) -> candle_core::Result<Tensor> {
        let [first, first_bias, second, second_bias, weight, bias] = &self.tensors;
        let layer = convolve(batch, first, first_bias)?; // (batch, 16, 12, 12)
        let layer = convolve(&layer, second, second_bias)?; // (batch, 32, 4, 4)
        layer
            .flatten_from(1)?
            .matmul(&weight.t()?)?
            .broadcast_add(bias)
    }

    /// Guesses the digits of a batch of pictures.
    ///
    /// # Errors
    /// When the computation fails, which no picture can bring about.
    pub fn guess(&self, pictures: &[Ink]) -> candle_core::Result<Vec<Guess>> {
        let logits = self.forward(&batch(pictures)?)?;
        let rows = softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
        Ok(rows.iter().map(|row| Guess::from_row(row)).collect())
    }

    /// How many of `pictures` are guessed as their `labels` say, from 0 to 1.
    ///
    /// # Errors
    /// As of [`Network::guess`].
    pub fn accuracy(&self, pictures: &[Ink], labels: &[u8]) -> candle_core::Result<f64> {
        let mut right = 0;
        for (pictures, labels) in pictures.chunks(200).zip(labels.chunks(200)) {
            let guesses = self.guess(pictures)?;
            right += guesses
                .iter()
                .zip(labels)
                .filter(|(guess, label)| guess.digit == **label)
                .count();
        }
        Ok(right as f64 / pictures.len() as f64)
    }
}

impl Guess {
    fn from_row(row: &[f32]) -> Guess {
        let mut probabilities = [0.0; 10];
        probabilities.copy_from_slice(row);
        let digit = (0u8..10)
            .max_by(|&one, &two| {
                probabilities[usize::from(one)].total_cmp(&probabilities[usize::from(two)])
            })
            .unwrap_or(0);
        Guess {
            digit,
            probabilities,
        }
    }
}

/// Pictures as one tensor of the shape (pictures, 1, 28, 28).
///
/// # Errors
/// None that the pictures could bring about.
pub fn batch(pictures: &[Ink]) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = pictures.iter().flatten().copied().collect();
    Tensor::from_vec(values, (pictures.len(), 1, SIDE, SIDE), &Device::Cpu)
}

/// One convolution without padding, with bias, rectifier and a pooling of 2x2.
fn convolve(input: &Tensor, kernel: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
    let channels = bias.dim(0)?;
    input
        .conv2d(kernel, 0, 1, 1, 1)?
        .broadcast_add(&bias.reshape((1, channels, 1, 1))?)?
        .max_pool2d(2)?
        .relu()
}

#[cfg(test)]
mod tests {
    use super::{Guess, Network, SHAPES, WEIGHTS};
    use crate::picture::{SIDE, blank};

    #[test]
    fn the_weights_in_the_binary_fit_the_network_and_are_small() {
        assert_eq!(SHAPES.len(), 6);
        assert!(WEIGHTS.len() < 1_000_000);
        let network = Network::trained().unwrap();
        let mut line = blank();
        for y in 4..24 {
            line[y * SIDE + 14] = 1.0;
            line[y * SIDE + 15] = 1.0;
        }
        let guess = &network.guess(&[line]).unwrap()[0];
        assert_eq!(guess.digit, 1);
        assert!((guess.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
    }

    #[test]
    fn the_likeliest_digit_is_the_guess() {
        let mut row = [0.05; 10];
        row[7] = 0.55;
        assert_eq!(Guess::from_row(&row).digit, 7);
    }
}
