//! The committed weights, tested on the committed held-out digits: no training, no download.

mod common;

use mnist::digits::read_strips;
use mnist::network::Network;
use mnist::train::ACCURACY_MIN;

#[test]
fn the_committed_weights_recognise_at_least_985_of_1000_held_out_digits() {
    let digits = read_strips(&common::folder("tests/heldout")).unwrap();
    assert_eq!(digits.labels.len(), 2000);
    let inks = digits.inks().unwrap();
    let accuracy = Network::trained()
        .unwrap()
        .accuracy(&inks, &digits.labels)
        .unwrap();
    println!("accuracy on {} held-out digits: {accuracy}", inks.len());
    assert!(accuracy >= ACCURACY_MIN, "{accuracy}");
}
