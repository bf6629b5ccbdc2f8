//! A sign of life of the accept loop, for whoever watches over it.

use tokio::sync::watch;

/// Tells whether the accept loop goes round.
#[derive(Clone, Debug)]
pub struct Pulse {
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { asked: watch::Sender::new(0), answered: watch::Sender::new(0) }
    }
}

impl Pulse {
    /// Asks the accept loop for a sign of life, and waits for it: in vain where there is no loop any more.
    pub async fn beat(&self) {
        let mut answers = self.answered.subscribe();
        self.asked.send_modify(|count| *count += 1);
        let asked = *self.asked.borrow();
        // The sender is held right here, so it cannot be gone.
        _ = answers.wait_for(|answered| *answered >= asked).await;
    }

    /// What the accept loop does beside its work.
    pub(crate) async fn answer_all(&self) {
        loop {
            let asked = self.asked().await;
            self.answered.send_replace(asked);
        }
    }

    async fn asked(&self) -> u64 {
        let mut asked = self.asked.subscribe();
        let answered = *self.answered.borrow();
        asked.wait_for(|asked| *asked > answered).await.map(|asked| *asked).unwrap_or_default()
    }
}
