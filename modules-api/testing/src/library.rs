//! The library of a module, built by cargo in the profile of the running test.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// Which library a server loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// That of a package, with its feature `loadable`.
    Package(&'static str),
    /// An example of a package: (package, example).
    Example(&'static str, &'static str),
}

impl Library {
    /// The path of the library, which is built first: `cargo test --test x` alone would not do that.
    /// Panics if it does not compile.
    pub fn path(self) -> PathBuf {
        static BUILT: Mutex<Option<HashMap<Library, PathBuf>>> = Mutex::new(None);
        let mut built = BUILT.lock().expect("a library that does not compile fails all tests with it");
        built.get_or_insert_default().entry(self).or_insert_with(|| self.build()).clone()
    }

    fn build(self) -> PathBuf {
        let test = std::env::current_exe().expect("a test has a path");
        let profile_dir = test.ancestors().nth(2).expect("target/profile/deps/test");
        let target_dir = profile_dir.parent().expect("target/profile");
        let profile_name = profile_dir.file_name().expect("a profile has a name");
        let profile = if profile_name == "debug" { "dev".as_ref() } else { profile_name };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let path = match self {
            Library::Package(package) => {
                // The package is an rlib elsewhere, built without the feature: this one has a directory of its own.
                let target_dir = target_dir.join("loadable");
                cargo.args([
                    "rustc",
                    "--package",
                    package,
                    "--features",
                    "loadable",
                    "--crate-type",
                    "cdylib",
                ]);
                cargo.arg("--target-dir").arg(&target_dir);
                target_dir.join(profile_name).join(format!("lib{}.so", package.replace('-', "_")))
            }
            Library::Example(package, example) => {
                cargo.args(["build", "--package", package, "--example", example]);
                cargo.arg("--target-dir").arg(target_dir);
                profile_dir.join("examples").join(format!("lib{example}.so"))
            }
        };
        let status = cargo.args(["--quiet", "--profile"]).arg(profile).status().expect("cargo runs");
        assert!(status.success(), "{self:?} does not compile");
        path
    }
}
