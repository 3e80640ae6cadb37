// kino-worker: see --help. The one file of the worker that knows the real engine.
#include "server/convert/condition_media.h"
#include "server/worker/worker_main.h"

int main(int argc, char** argv) {
  return kino::worker::WorkerMain(argc, argv, kino::engine::Engine::Create,
                                  kino::convert::DecodeCondition);
}
