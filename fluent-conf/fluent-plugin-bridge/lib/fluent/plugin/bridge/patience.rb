# frozen_string_literal: true

require 'fluent/clock'
require 'fluent/plugin/bridge/sidecar_error'

module Fluent
  module Plugin
    module Bridge
      # Tries again what the sidecar could not do yet, with growing waits, and one line in the log a wait.
      class Patience
        WAITS = [0.5, 1, 2, 4, 5].freeze # seconds; the last for good
        private_constant :WAITS

        # @param timeout [Numeric] seconds until the last error is raised
        # @param log [Fluent::Log]
        def initialize(timeout, log)
          @timeout = timeout
          @log = log
          @mutex = Mutex.new
          @stopping = false
          @stopped = ConditionVariable.new
        end

        # Yields until it works.
        #
        # @param endless [Boolean] whether to go on after the timeout, and while Fluentd stops
        # @yieldparam remaining [Numeric] seconds that the attempt may take
        # @return what the block returns
        # @raise [SidecarError] the last one, when the time is over or Fluentd stops
        def try(endless: false)
          began = Fluent::Clock.now
          failures = 0
          begin
            result = yield remaining(began, endless)
            recovered(began, failures) if failures.positive?
            result
          rescue Refused
            raise
          rescue SidecarError => e
            raise if @stopping && !endless

            wait = e.pushback || WAITS[[failures, WAITS.size - 1].min]
            left = endless ? Float::INFINITY : remaining(began, endless)
            if wait >= left
              pause(left, endless) # whoever gets the error may be back at once
              raise
            end
            @log.warn "#{e.message}: trying again in #{format('%g', wait.round(1))} s"
            pause(wait, endless)
            failures += 1
            retry
          end
        end

        # Ends all waits but the endless ones: from now on {#try} tries once.
        def stop
          @mutex.synchronize do
            @stopping = true
            @stopped.broadcast
          end
        end

        private

        def remaining(began, endless)
          endless ? @timeout : [@timeout - (Fluent::Clock.now - began), 0].max
        end

        def pause(seconds, endless)
          return sleep(seconds) if endless

          @mutex.synchronize { @stopped.wait(@mutex, seconds) unless @stopping }
        end

        def recovered(began, failures)
          @log.info "the sidecar answers again, after #{failures} failed attempts in #{(Fluent::Clock.now - began).round(1)} s"
        end
      end
    end
  end
end
