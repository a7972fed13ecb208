#pragma once
// --kv-transfer-config as vLLM takes it (facts sheet "kv_transfer" 2.1): each key either sets something of ours, or is accepted
// with one line that says what it comes to here. One row of one table a key.
#include <string>
#include <vector>

#include "engine/config.h"

namespace baton::engine {

// Reads c.kv_transfer_config into c; what a person should know goes to c.kv_notes.
Result<> read_transfer_config(EngineConfig& c);

}  // namespace baton::engine
