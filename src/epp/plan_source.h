#pragma once
// Where the router's Plan comes from: --config-file, --config-text or the built-in default, with what earlier releases said by
// flag laid over it. PlanSource reads the file again when asked and tells whether it changed; reading through the name follows
// the symlink swap by which Kubernetes replaces a ConfigMap. Guarantees: a configuration that is wrong is never in force; all
// errors and warnings together. Thread: one at a time.
#include <memory>
#include <optional>
#include <string>

#include "epp/config.h"
#include "route/config.h"

namespace baton::epp {

class PlanSource {
 public:
  explicit PlanSource(const RouterFlags& flags) : flags_(flags) {}
  route::Loaded load();                    // now
  std::optional<route::Loaded> changed();  // loads if the file's content is not what was loaded last
  bool follows_file() const { return !flags_.config_file.empty(); }

 private:
  Result<std::string> read() const;
  route::Loaded loaded(Result<std::string> text);
  const RouterFlags& flags_;
  std::optional<std::string> last_;  // text, or what reading it said
};

// --validate-config and --print-config: text for stdout and stderr, and the exit code (1 = errors). Flags count too.
struct Explained {
  std::string out, err;
  int code = 0;
};
Explained validate_config(const RouterFlags& flags);
Explained print_config(const RouterFlags& flags, const Options& options);

}  // namespace baton::epp
