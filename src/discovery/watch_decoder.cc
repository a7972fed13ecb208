#include "discovery/watch_decoder.h"

namespace baton::discovery {

Result<> WatchDecoder::feed(std::string_view bytes, std::vector<WatchEvent>& out) {
  if (failed_) return fail(Code::kFailedPrecondition, "watch events after a broken one");
  failed_ = true;  // until this call has gone well
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    const std::string_view part = bytes.substr(0, newline);
    if (line_.size() + part.size() > event_bytes_max_) {
      return fail(Code::kResourceExhausted, "a watch event is over ", event_bytes_max_, " bytes");
    }
    if (newline == std::string_view::npos) {
      line_ += part;
      break;
    }
    bytes.remove_prefix(newline + 1);
    if (line_.empty()) {
      BATON_OK(event(part, out));
    } else {
      line_ += part;
      BATON_OK(event(line_, out));
      line_.clear();
    }
  }
  failed_ = false;
  return {};
}

Result<> WatchDecoder::event(std::string_view line, std::vector<WatchEvent>& out) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return {};
  auto json = parse_json(line, {.bytes_max = event_bytes_max_, .nodes_max = 200'000, .depth_max = 64});
  if (!json) return within("watch event", std::move(json).error());
  const Json* type = json->find("type");
  const Json* object = json->find("object");
  if (!type || !type->is_string() || !object || !object->is_object()) {
    return fail(Code::kDataLoss, "a watch event without type and object");
  }
  WatchEvent event;
  if (type->text == "ADDED" || type->text == "MODIFIED") {
    event.type = WatchEvent::Type::kPut;
  } else if (type->text == "DELETED") {
    event.type = WatchEvent::Type::kErase;
  } else if (type->text == "BOOKMARK") {
    event.type = WatchEvent::Type::kBookmark;
  } else if (type->text == "ERROR") {
    event.type = WatchEvent::Type::kError;
    const Json* code = object->find("code");
    event.error_code = code ? static_cast<int>(code->as_int().value_or(0)) : 0;
  } else {
    return fail(Code::kDataLoss, "a watch event of unknown type");
  }
  const Json* version = object->find_path({"metadata", "resourceVersion"});
  if (version && version->is_string()) event.version = version->text;
  if (event.type != WatchEvent::Type::kError && event.version.empty()) {
    return fail(Code::kDataLoss, "a watch event without resourceVersion");
  }
  event.object = std::move(json->items[static_cast<size_t>(object - json->items.data())]);
  out.push_back(std::move(event));
  return {};
}

}  // namespace baton::discovery
