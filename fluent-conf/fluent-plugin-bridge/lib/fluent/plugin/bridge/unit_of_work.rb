# frozen_string_literal: true

module Fluent
  module Plugin
    module Bridge
      # What stands or falls together: the events that an input read from Kafka, everything that is
      # produced while they run through the pipeline in the input's thread, and their offsets.
      #
      # An output without <buffer> runs in the thread of the input that emits (output.rb, process), so
      # it finds the unit there.
      class UnitOfWork
        KEY = :fluent_bridge_unit_of_work
        private_constant :KEY

        # @return [UnitOfWork, nil] the unit of this thread
        def self.current
          Thread.current.thread_variable_get(KEY)
        end

        # Yields the unit. When the block has returned, everything that was emitted in it has been
        # produced, though not delivered yet.
        #
        # @param producer [Producer] the producer of this thread
        # @raise [StandardError] whatever the block raised, or what {#fail} was called with
        def self.run(producer)
          unit = new(producer)
          Thread.current.thread_variable_set(KEY, unit)
          yield unit
          unit.check
        ensure
          Thread.current.thread_variable_set(KEY, nil)
        end

        # @return [Producer] what results must be produced into, and nowhere else
        attr_reader :producer

        def initialize(producer)
          @producer = producer
          @failure = nil
        end

        # Notes a failure. Raising alone is not enough: with an @ERROR label Fluentd hands the events
        # that a plugin raised for to that label and tells the input nothing
        # (root_agent.rb, handle_emits_error).
        #
        # @param error [StandardError] why this unit must not be committed
        def fail(error)
          @failure ||= error # rubocop:disable Naming/MemoizedInstanceVariableName -- the first is the cause
        end

        # @raise [StandardError] what {#fail} was called with
        def check
          raise @failure if @failure
        end
      end
    end
  end
end
