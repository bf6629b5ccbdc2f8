//! What threads of the daemon hear of the system, as strace puts it. It takes root where a process may not be traced by
//! others.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use crate::process::{self, program, until};

/// A lie that is told; the truth again once this is gone.
pub(crate) struct Lie(Child);

impl Lie {
    /// Lies to those threads about those system calls, in strace's own words.
    pub(crate) async fn tell(threads: &[u32], calls: &str, injection: &str) -> Self {
        let log = process::folder();
        let said = log.path().join("strace");
        let mut command = Command::new(program("strace"));
        for thread in threads {
            command.args(["-p", &thread.to_string()]);
        }
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{injection}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said).unwrap());
        let lie = Self(command.spawn().unwrap());
        // A thread that has ended by now cannot be attached.
        let are_attached =
            async || fs::read_to_string(&said).unwrap().matches("attach").count() == threads.len();
        until("strace is attached", are_attached).await;
        lie
    }
}

impl Drop for Lie {
    fn drop(&mut self) {
        // Asked, so that it lets go of the threads first.
        _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status();
        _ = self.0.wait();
    }
}
