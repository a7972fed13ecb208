#pragma once
// SchemaWriter: the state of writing one schema; schema.cc has the keywords that combine schemas, schema_types.cc those of each
// type.
#include <map>
#include <set>

#include "grammar/limits.h"
#include "grammar/schema.h"

namespace baton::grammar {

// A schema and where it stands, for messages: "#/properties/a".
struct Place {
  const Json& schema;
  std::string path;
  int depth = 0;
  Place under(std::string_view key, const Json& child) const { return {child, path + "/" + std::string(key), depth + 1}; }
};

class SchemaWriter {
 public:
  SchemaWriter(JsonRules& json, const Json& root) : json_(json), r_(json.rules()), root_(root) {}
  Result<ExprId> value(const Place& at);  // cheap to use more than once: a call, or little text

 private:
  template <class... Args>
  static std::unexpected<Error> refused(const Place& at, const Args&... what) {
    return fail(Code::kInvalidArgument, "The provided JSON schema contains features not supported: ", what..., " at ", at.path);
  }
  template <class... Args>
  static std::unexpected<Error> invalid(const Place& at, const Args&... what) {
    return fail(Code::kInvalidArgument, "The provided JSON schema is not valid: ", what..., " at ", at.path);
  }

  Result<ExprId> unwrapped(const Place& at);
  Result<> refuse_keywords(const Place& at) const;
  Result<ExprId> reference(const Place& at, std::string_view pointer);
  Result<const Json*> resolve(const Place& at, std::string_view pointer) const;
  Result<Json> without_reference(const Place& at, const Json& schema) const;
  Result<ExprId> all_of(const Place& at);
  Result<ExprId> any_of(const Place& at, const std::string& key);
  Result<ExprId> choices(const Place& at);
  bool spend(const Json& copied) const;  // false: the schemas written into each other are too many
  bool disjoint(const Json& a, const Json& b, int depth) const;

  Result<ExprId> typed(const Place& at, std::string_view type);
  Result<std::optional<int32_t>> count(const Place& at, std::string_view key) const;
  Result<ExprId> object(const Place& at);
  struct Member {
    std::string name;
    ExprId written;  // name, colon and value
    bool required;
  };
  Result<std::vector<Member>> members(const Place& at, bool& closed);
  Result<std::optional<ExprId>> extra_member(const Place& at, const std::vector<std::string>& names);
  ExprId in_order(const std::vector<Member>& members, std::optional<ExprId> extra);
  ExprId name_other_than(const std::vector<std::string>& names);
  Result<ExprId> counted_members(const Place& at, std::optional<ExprId> extra, size_t required, size_t declared, bool& bounded);
  ExprId list(ExprId item, int32_t min, int32_t max);  // in brackets written by the caller, which may be empty where min is 0
  Result<ExprId> array(const Place& at);
  Result<ExprId> string(const Place& at);
  Result<ExprId> number(const Place& at, bool integer);

  JsonRules& json_;
  Rules& r_;
  const Json& root_;
  std::map<std::string, RuleId, std::less<>> references_;
  mutable size_t copied_ = 0;  // bytes of source
};

}  // namespace baton::grammar
