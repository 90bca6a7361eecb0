//! What a backup, restore or verification left out, path by path.

use serde::Serialize;

use super::output::note;
use crate::files::Problem;

/// One of them, for machines; what of a path is not UTF-8 is replaced.
#[derive(Serialize)]
pub(super) struct ProblemLine {
    path: String,
    what: String,
    loss: bool,
}

/// All of them, in the order of their paths.
pub(super) fn lines(problems: &[Problem]) -> Vec<ProblemLine> {
    let mut lines: Vec<ProblemLine> = problems
        .iter()
        .map(|problem| ProblemLine {
            path: problem.path.to_string_lossy().into_owned(),
            what: problem.what.to_string(),
            loss: problem.what.is_loss(),
        })
        .collect();
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    lines
}

/// Tells people of them; `count` may be more than are known by name.
pub(super) fn tell(lines: &[ProblemLine], count: u64) {
    for line in lines {
        // A name may hold what a terminal would obey.
        note(&format!("refuge: {}: {}", line.path.escape_debug(), line.what));
    }
    let unnamed = count.saturating_sub(lines.len() as u64);
    if unnamed > 0 {
        note(&format!("refuge: and {unnamed} more"));
    }
}
