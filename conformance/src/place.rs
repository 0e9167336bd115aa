//! Where things are: this program is only ever run by cargo, from the workspace that it was built in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::server::Server;
use crate::{Result, Trouble};

#[derive(Debug, Clone)]
pub struct Place {
    pub workspace: PathBuf,
    /// Cargo's target directory, wherever the configuration puts it.
    pub target_dir: PathBuf,
}

impl Place {
    pub fn of_this_program() -> Result<Place> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = own.parent().ok_or_else(|| Trouble::new("the crate is in no workspace"))?.to_owned();
        // TARGET/PROFILE/conformance
        let program = std::env::current_exe().map_err(Trouble::doing("finding this program"))?;
        let target_dir = program
            .ancestors()
            .nth(2)
            .ok_or_else(|| Trouble::new(format!("{} is in no target directory", program.display())))?
            .to_owned();
        Ok(Place { workspace, target_dir })
    }

    pub fn conformance(&self) -> PathBuf {
        self.workspace.join("conformance")
    }

    /// What is downloaded; ignored by git.
    pub fn cache(&self) -> PathBuf {
        self.conformance().join("cache")
    }

    /// Lanes and raw output.
    pub fn work_dir(&self) -> PathBuf {
        self.target_dir.join("conformance-runs")
    }

    /// The list that is held against `server`.
    pub fn expectations(&self, server: &Server) -> PathBuf {
        self.conformance().join(if server.is_shardis { "expectations.tsv" } else { "control.tsv" })
    }

    pub fn read(&self, path: &Path) -> Result<String> {
        fs::read_to_string(path).map_err(Trouble::doing(format!("reading {}", path.display())))
    }

    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).map_err(Trouble::doing(format!("writing {}", path.display())))
    }

    pub fn core_count() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get())
    }
}
