//! `convene chat`: the terminal client, which knows nothing of this process's data.

use convene_chat::ChatArgs;

use crate::cli::CliError;

/// Runs the client to its end.
pub(crate) fn run(args: ChatArgs) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(convene_chat::run(args));
    // The task that reads the terminal sits in a blocking read: it is not waited for.
    runtime.shutdown_background();
    Ok(done?)
}
