//! Names for what nobody named: `adjective-animal-NNN`.

use uuid::Uuid;

const ADJECTIVES: [&str; 32] = [
    "able", "amber", "bold", "brisk", "calm", "clear", "deep", "eager", "early", "fair", "firm", "fleet", "gentle",
    "glad", "grand", "keen", "kind", "lively", "lucid", "mild", "neat", "noble", "prime", "quick", "quiet", "rapid",
    "ready", "sharp", "solid", "steady", "swift", "wise",
];
const ANIMALS: [&str; 32] = [
    "badger", "bear", "bee", "bison", "crane", "crow", "deer", "dove", "eagle", "falcon", "finch", "fox", "gull",
    "hare", "hawk", "heron", "horse", "ibex", "jay", "kite", "lark", "lynx", "mole", "moth", "otter", "owl", "raven",
    "seal", "stork", "swan", "trout", "wren",
];

pub(super) fn random() -> String {
    let drawn = Uuid::new_v4().as_u128();
    let of = |list: &[&'static str; 32], shift: u32| list[(drawn >> shift) as usize % list.len()];
    format!("{}-{}-{}", of(&ADJECTIVES, 0), of(&ANIMALS, 8), (drawn >> 16) as u64 % 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_have_three_parts() {
        for _ in 0..100 {
            let name = super::random();
            assert_eq!(name.split('-').count(), 3, "{name}");
        }
    }
}
