//! What a backup leaves out, in the syntax of gitignore.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::super::error::Error;

/// Compiled rules.
pub(super) struct Rules {
    matcher: Option<Gitignore>,
}

impl Rules {
    /// Rules in order, the last one that fits decides; one with `!` in front takes back in.
    ///
    /// # Errors
    /// [`Error::Rule`].
    pub(super) fn new(rules: &[String]) -> Result<Rules, Error> {
        if rules.is_empty() {
            return Ok(Rules { matcher: None });
        }
        let mut builder = GitignoreBuilder::new("");
        for rule in rules {
            let failed = |source| Error::Rule {
                rule: rule.clone(),
                source,
            };
            builder.add_line(None, rule).map_err(failed)?;
        }
        let matcher = builder.build().map_err(|source| Error::Rule {
            rule: rules.join(", "),
            source,
        })?;
        Ok(Rules {
            matcher: Some(matcher),
        })
    }

    /// Whether what is at `path`, relative to the folder of the backup, is left out. What is in an excluded
    /// folder is never asked for.
    pub(super) fn excludes(&self, path: &Path, is_folder: bool) -> bool {
        self.matcher
            .as_ref()
            .is_some_and(|matcher| matcher.matched(path, is_folder).is_ignore())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.matcher.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_those_of_gitignore() {
        let rules: Vec<String> = ["*.o", "!keep.o", "/build", "cache/", "docs/**/*.tmp"]
            .map(str::to_owned)
            .into();
        let rules = Rules::new(&rules).unwrap();
        for (path, is_folder, expected) in [
            ("a.o", false, true),
            ("deep/a.o", false, true),
            ("deep/keep.o", false, false),
            ("build", true, true),
            ("deep/build", true, false),
            ("deep/cache", true, true),
            ("deep/cache", false, false),
            ("docs/a/b/c.tmp", false, true),
            ("a.tmp", false, false),
        ] {
            assert_eq!(rules.excludes(Path::new(path), is_folder), expected, "{path}");
        }
        assert!(matches!(
            Rules::new(&["[z-a]".to_owned()]),
            Err(Error::Rule { .. })
        ));
    }
}
