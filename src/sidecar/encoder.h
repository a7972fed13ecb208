#pragma once
// The encoder stage before the prefill (E/P/D): every image, audio or video of a chat request goes to an encoder worker of its
// own, all at the same time, and the engines find the result in a store (ec-example) or where ec_transfer_params say (ec-nixl).
// Source: facts sheet "kv_transfer" 1.11.
#include <string>
#include <vector>

#include "base/json.h"
#include "sidecar/hosts.h"

namespace baton::sidecar {

class Exchange;

std::vector<std::string> encoder_connectors();  // of --ec-connector, "" among them

// The parts of messages that an encoder must see, as text; of several with the same URL the first.
std::vector<std::string_view> media_items(std::string_view body, const Json& root);
// The request for one of them: nothing else in it, one token, no stream.
std::string encoder_body(std::string_view body, const Json& root, std::string_view item);

}  // namespace baton::sidecar
