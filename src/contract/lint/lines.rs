//! On which line each value of a YAML or JSON text stands (JSON is YAML).

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};
use std::collections::HashMap;

/// Lines by the path to a value, its keys and indices joined by dots.
#[derive(Default)]
pub struct Lines(HashMap<String, usize>);

impl Lines {
    /// Where the values of `text` stand; nothing is known of a text that is no YAML.
    pub fn new(text: &str) -> Self {
        let mut lines = Lines::default();
        if let Ok(documents) = MarkedYaml::load_from_str(text)
            && let Some(document) = documents.first()
        {
            lines.collect(document, "");
        }
        lines
    }

    /// The line of the value at `path`, or of what is nearest around it.
    pub fn of(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rsplit_once('.') {
                Some((outer, _)) => path = outer,
                None if path.is_empty() => return 1,
                None => path = "",
            }
        }
    }

    fn collect(&mut self, node: &MarkedYaml<'_>, path: &str) {
        self.0.insert(path.to_owned(), node.span.start.line());
        let inner = |key: &str| match path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        match &node.data {
            YamlData::Sequence(all) => {
                for (index, node) in all.iter().enumerate() {
                    self.collect(node, &inner(&index.to_string()));
                }
            }
            YamlData::Mapping(all) => {
                for (key, node) in all {
                    if let Some(key) = key.data.as_str() {
                        self.collect(node, &inner(key));
                    }
                }
            }
            _ => {}
        }
    }
}
