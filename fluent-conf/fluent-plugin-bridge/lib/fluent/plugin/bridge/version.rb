# frozen_string_literal: true

module Fluent
  module Plugin
    module Bridge
      # The gem's version, and the plugin's as the sidecar sees it.
      VERSION = '0.1.0'
    end
  end
end
