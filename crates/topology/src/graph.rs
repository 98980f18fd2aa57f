//! The drawing of a topology as text.

use std::fmt;

use crate::typed::Topology;

impl Topology {
    /// Draws each processor between the topics that it consumes and what it produces.
    pub fn graph(&self) -> impl fmt::Display + '_ {
        Graph(self)
    }
}

struct Graph<'t>(&'t Topology);

impl fmt::Display for Graph<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for processor in self.0.processors.values() {
            for topic in &processor.consumes {
                writeln!(f, "{topic}")?;
            }
            writeln!(f, "  └─► {} ({:?}, up to {} records)", processor.name, processor.kind, processor.batch.records)?;
            let events = processor.produces.iter().map(|topic| format!("event      {topic}"));
            let rows = processor.writes.iter().map(|read_model| match &self.0.read_models.get(read_model) {
                Some(found) => match &found.model {
                    Some(model) => format!("read model {read_model} (vectors by {model})"),
                    None => format!("read model {read_model}"),
                },
                None => read_model.clone(),
            });
            for line in events.chain(rows) {
                writeln!(f, "        └─► {line}")?;
            }
            writeln!(f)?;
        }
        let orphans: Vec<_> = self
            .0
            .topics
            .values()
            .filter(|topic| !self.0.processors.values().any(|p| p.consumes.contains(&topic.spec.name)))
            .map(|topic| topic.spec.name.to_string())
            .collect();
        write!(f, "consumed by subscribers only: {}", orphans.join(", "))
    }
}
