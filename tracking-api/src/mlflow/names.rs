//! Random names for runs and logged models without a name: `adjective-animal-NNN`.

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
    let bits = Uuid::new_v4().as_u128();
    let pick = |list: &[&'static str; 32], shift: u32| list[(bits >> shift) as usize % list.len()];
    format!("{}-{}-{}", pick(&ADJECTIVES, 0), pick(&ANIMALS, 8), (bits >> 16) as u64 % 1000)
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
