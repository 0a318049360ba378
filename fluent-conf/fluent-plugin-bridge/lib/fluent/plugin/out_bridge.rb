# frozen_string_literal: true

require 'fluent/error'
require 'fluent/plugin/output'
require 'fluent/plugin/bridge/one_writer'
require 'fluent/plugin/bridge/results'
require 'fluent/plugin/bridge/sidecar_parameters'

module Fluent
  module Plugin
    # Runs buffered chunks through the Python functions of a fluent-bridge sidecar, as many at a time as there
    # are flush threads, and emits the results into a label. A chunk leaves the buffer when they have been emitted.
    class BridgeOutput < Output
      Fluent::Plugin.register_output('bridge', self)

      include Bridge::SidecarParameters

      helpers :event_emitter

      config_section :buffer do
        config_set_default :chunk_keys, ['tag']
        # By default a chunk is thrown away after 72 hours, and the waits grow to hours.
        config_set_default :retry_forever, true
        config_set_default :retry_max_interval, 30
      end

      def configure(conf)
        super
        check_configuration(conf)
        @sidecar = sidecar_from_parameters
        @results = Bridge::Results.new(@router, "<label #{conf['@label']}>")
      end

      # @return [Boolean] several workers may run it
      def multi_workers_ready?
        true
      end

      def close
        @sidecar.close
        super
      end

      # @param chunk [Fluent::Plugin::Buffer::Chunk]
      # @raise [Bridge::SidecarError] the chunk stays in the buffer and comes again
      # @raise [Fluent::UnrecoverableError] it holds something else than events, and goes to the <secondary> or is backed up
      def write(chunk)
        return if chunk.empty?

        streams = @sidecar.process(chunk.metadata.tag, chunk.read, chunk.size, timeout)
        @results.check(streams)
        @results.emit(streams)
      rescue Bridge::Refused => e
        raise Fluent::UnrecoverableError, e.message, []
      end

      private

      def check_configuration(conf)
        if conf.elements(name: 'buffer').empty?
          raise Fluent::ConfigError, 'there is no <buffer>: add one, or to run without use <filter> with `@type bridge`'
        end

        unless @chunk_key_tag
          keys = @buffer_config.chunk_keys.map { |key| " #{key}" }.join(',')
          raise Fluent::ConfigError, "<buffer#{keys}> has no `tag`, and tags choose the functions: use <buffer tag>"
        end
        return if conf['@label'] && !@router.equal?(context_router)

        raise Fluent::ConfigError, 'results would come back to this <match>: ' \
                                   "set @label to another label than the one that it stands in#{" (#{conf['@label']})" if conf['@label']}"
      end
    end
  end
end
