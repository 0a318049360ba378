# frozen_string_literal: true

require 'fluent/plugin/bridge/unit_of_work'

module Fluent
  module Plugin
    module Bridge
      # Fluentd's root agent, so that what fails in a unit of work reaches the input, at whatever depth of the
      # pipeline: the router of every label asks it what to do (label.rb, root_agent.rb).
      module UnitErrors
        # Fluentd would hand the events to an @ERROR label and return as if they had been delivered.
        def handle_emits_error(_tag, _events, error)
          return super unless UnitOfWork.current

          raise error
        end

        # Without an @ERROR label Fluentd would only write the event to its log.
        def emit_error_event(_tag, _time, _record, error)
          return super if @error_collector || UnitOfWork.current.nil?

          raise error
        end
      end
    end
  end
end
