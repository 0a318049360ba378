# frozen_string_literal: true

module Fluent
  module Plugin
    module Bridge
      # A batch did not go through the sidecar, and nothing of it has taken effect.
      #
      #   SidecarError
      #     Unavailable      come again
      #     VersionMismatch  come again when the plugin or the sidecar has been updated
      #     Refused          never: the batch holds something else than events, or one that is too large
      #     NoDestination    come again when the configuration has a <match> for the result
      #
      # Inputs and outputs write what a plugin raises into Fluentd's log with its backtrace, at every
      # attempt (root_agent.rb, handle_emits_error; plugin_helper/server.rb, on_read_with_connection;
      # output.rb, update_retry_state). These errors are about another program: the message is all
      # there is to know, so they have no backtrace.
      class SidecarError < StandardError
        # @return [Float, nil] seconds that the sidecar wants to be left alone
        attr_reader :pushback

        # @param message [String] what is wrong, where, and what to do
        # @param pushback [Float, nil] seconds that the sidecar wants to be left alone
        def initialize(message, pushback: nil)
          super(message)
          @pushback = pushback
        end

        # @return [Array] nothing
        def backtrace
          []
        end
      end

      class Unavailable < SidecarError; end
      class VersionMismatch < SidecarError; end
      class Refused < SidecarError; end
      class NoDestination < SidecarError; end
    end
  end
end
