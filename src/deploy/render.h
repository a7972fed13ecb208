#pragma once
// `baton deploy render`: a plan as manifests, made by the guides' own helmfile and charts and a real helm; without helm, the
// values file and the command that takes it. Nothing of the helmfile is repeated here: helm itself renders it, as the body of a
// ConfigMap. The helmfile's variables (RELEASE_NAME_POSTFIX, IMAGE_REGISTRY, SERVICE_TYPE, HTTP_ROUTE, USE_HOST_NETWORK) are
// taken from the environment.
#include <map>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"
#include "deploy/plan.h"

namespace baton::deploy {

struct RenderCommand {
  PlanAsk ask;
  std::string model_uri;  // modelArtifacts.uri, where --model is a file of this machine
  std::string ns = "llm-d-pd";
  std::string out = "baton-deploy";  // folder
  std::string root;                  // of a clone of this repository; "" = around here, or around this program
  std::string helm = "helm";
  std::string apis = "auto";  // what the cluster has: all, none; auto = none for kind
  std::string kube_version = "1.33.0";
};
Options render_options(RenderCommand& command);
Result<> render(RenderCommand& command);

// Pieces. A release of the helmfile: values in order, as texts.
struct Release {
  std::string name, chart;
  std::vector<std::string> values;
};
Result<std::vector<Release>> releases_of(const RenderCommand& command, const std::string& helm,
                                         const std::map<std::string, std::string>& variables);
std::string as_chart_template(std::string_view helmfile);  // env, .Namespace, .Environment.Name as values

}  // namespace baton::deploy
