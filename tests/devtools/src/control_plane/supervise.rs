//! Child processes and a temporary directory that end with this process, however it ends.
//!
//! Each has a small shell that holds the reading end of a pipe. This process holds the only writing
//! end. When that closes (drop, panic, exit without drop, a signal, SIGKILL), the shell kills its
//! child or removes the directory. No code of this process has to run for that.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Error, log_tail};

/// Runs "$@" as its child. Each line of standard input is the name of a signal for the child; the
/// end of the input kills the child. It prints the child's process id, and exits with the child's
/// status.
///
/// The reader ignores TERM before it kills the child. So its status shows whether the child ended
/// by itself (the reader was terminated) or was killed (42).
const SUPERVISOR: &str = r#"
"$@" </dev/null >&2 3<&- &
child=$!
(
  while read -r signal; do kill -s "$signal" "$child"; done
  trap '' TERM
  kill -s KILL "$child"
  exit 42
) <&3 >/dev/null 2>&1 &
reader=$!
exec 3<&-
echo "$child"
exec >&-
wait "$child"
status=$?
kill -s TERM "$reader" 2>/dev/null
wait "$reader" 2>/dev/null
exit "$status"
"#;

/// Creates a directory and prints its path. On the line `done` it removes the directory at once. At
/// the end of its input it retries, until the processes that use the directory have been killed.
const JANITOR: &str = r#"
umask 077
directory=$(mktemp -d "$1/ca-overlap.XXXXXXXX") || exit 1
echo "$directory"
exec >&-
read -r word && [ "$word" = done ] && exec rm -rf -- "$directory"
tries=0
while [ "$tries" -lt 50 ]; do
  rm -rf -- "$directory"
  sleep 0.2
  [ -e "$directory" ] || exit 0
  tries=$((tries + 1))
done
exit 1
"#;

/// A private directory that is removed when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    janitor: Child,
}

impl Scratch {
    /// Creates the directory in the system's directory for temporary files.
    pub fn create() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let mut janitor = shell(JANITOR)
            .arg(&parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Spawn { program: "sh".into(), source })?;
        let path = PathBuf::from(first_line(&mut janitor)?);
        if path.as_os_str().is_empty() {
            return Err(Error::Unexpected(format!(
                "cannot create a temporary directory in {}: set TMPDIR to a writable directory",
                parent.display()
            )));
        }
        Ok(Self { path, janitor })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file with mode 0600 and returns its path. Replacing a file is atomic for its
    /// readers.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        use std::os::unix::fs::OpenOptionsExt;

        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (path, new) = (self.path.join(name), self.path.join(format!(".{number}.new")));
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(content.as_ref()))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(Error::file(&path))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.janitor.stdin.take() {
            // A write error means that the janitor has ended.
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.janitor.wait();
    }
}

/// A running program. It is killed when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Supervised {
    name: String,
    log: PathBuf,
    pid: u32,
    supervisor: Child,
    lifeline: Option<ChildStdin>,
}

impl Supervised {
    /// Starts `program` in `directory` and appends its output to the file `log`.
    pub fn start<I, S>(
        name: &str,
        program: &Path,
        arguments: I,
        environment: &[(&str, &OsStr)],
        directory: &Path,
        log: PathBuf,
    ) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let file =
            File::options().create(true).append(true).open(&log).map_err(Error::file(&log))?;
        // Standard input moves to descriptor 3: the shell gives a background reader /dev/null as
        // standard input.
        let mut supervisor = shell(&format!("exec 3<&0 </dev/null\n{SUPERVISOR}"))
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|source| Error::Spawn { program: program.display().to_string(), source })?;
        let lifeline = supervisor.stdin.take();
        let pid = first_line(&mut supervisor)?
            .parse()
            .map_err(|_| Error::Ended { component: name.into(), log: log_tail(&log) })?;
        Ok(Self { name: name.into(), log, pid, supervisor, lifeline })
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file with the program's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal, such as `TERM`. Has no effect if the program has ended.
    pub fn signal(&mut self, name: &str) {
        if let Some(lifeline) = &mut self.lifeline {
            let _ = writeln!(lifeline, "{name}");
        }
    }

    /// The exit status, if the program has ended. After signal N the exit code is 128 + N.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.supervisor.try_wait().ok().flatten()
    }

    /// Returns an error with the end of the log if the program has ended.
    pub fn still_running(&mut self) -> Result<(), Error> {
        match self.ended() {
            None => Ok(()),
            Some(_) => Err(Error::Ended { component: self.name.clone(), log: log_tail(&self.log) }),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.supervisor.wait();
    }
}

/// A shell in a separate process group, so that Ctrl-C at a terminal reaches this process alone.
fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg("ca-overlap-supervisor").process_group(0);
    command
}

fn first_line(child: &mut Child) -> Result<String, Error> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|source| Error::Spawn { program: "sh".into(), source })?;
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(scratch: &Scratch, script: &str) -> Supervised {
        let log = scratch.path().join("log");
        Supervised::start("it", Path::new("/bin/sh"), ["-c", script], &[], scratch.path(), log)
            .unwrap()
    }

    #[test]
    fn the_directory_is_private_and_removed_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;

        let scratch = Scratch::create().unwrap();
        let path = scratch.path().to_owned();
        scratch.write("token", "x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn the_exit_code_and_the_output_are_passed_on() {
        let scratch = Scratch::create().unwrap();
        let mut it = start(&scratch, "echo said; exit 7");
        assert_eq!(it.supervisor.wait().unwrap().code(), Some(7));
        assert_eq!(std::fs::read_to_string(it.log()).unwrap(), "said\n");
        let error = it.still_running().unwrap_err().to_string();
        assert_eq!(error, "it ended; the last lines of its log:\n  said");
    }

    #[test]
    fn a_signal_reaches_the_program() {
        let scratch = Scratch::create().unwrap();
        // The file `ready` shows that the trap is set. The trap can interrupt the loop.
        let mut it = start(&scratch, "trap 'exit 9' USR1; : >ready; while :; do sleep 0.05; done");
        while !scratch.path().join("ready").exists() {
            std::thread::yield_now();
        }
        assert!(it.ended().is_none());
        it.signal("USR1");
        assert_eq!(it.supervisor.wait().unwrap().code(), Some(9));
    }

    #[test]
    fn a_program_that_ignores_signals_is_killed_on_drop() {
        let scratch = Scratch::create().unwrap();
        let it = start(&scratch, "trap '' TERM INT HUP; : >ready; while :; do sleep 0.05; done");
        while !scratch.path().join("ready").exists() {
            std::thread::yield_now();
        }
        let pid = it.pid();
        drop(it);
        let alive = Command::new("kill").args(["-0", &pid.to_string()]).output().unwrap();
        assert!(!alive.status.success());
    }
}
